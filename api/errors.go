package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Titles of problems. Clients may compare them; the detail is for people.
const (
	TitleInvalid         = "Invalid"
	TitleNotFound        = "NotFound"
	TitleAlreadyExists   = "AlreadyExists"
	TitleConflict        = "Conflict"
	TitleOwned           = "Owned"
	TitleForbidden       = "Forbidden"
	TitleNotAllowed      = "NotAllowed" // see NotAllowed
	TitleUnauthenticated = "Unauthenticated"
	TitleGone            = "Gone"
	TitleTooMany         = "TooManyRequests"
	TitleUnavailable     = "Unavailable"
	TitleTimeout         = "Timeout"
	TitleUnimplemented   = "Unimplemented"
	TitleInternal        = "Internal"
	TitleTooLarge        = "TooLarge"

	TitleMethodNotAllowed = "MethodNotAllowed"
	TitleAdoptionRequired = "AdoptionRequired" // the source's spec.adopt does not allow it to take this project
	TitleExpired          = "Expired"          // the project's expireAt has passed
	TitleOverridden       = "Overridden"       // a person's override is active
	TitleStaleEpoch       = "StaleEpoch"       // the project has been assigned again
	TitleStaleGeneration  = "StaleGeneration"  // the spec has changed
	TitleTakenOver        = "TakenOver"        // a newer connection of the same agent replaced this one
	TitleTerminating      = "Terminating"      // the object is being deleted
)

// MaxFieldErrors limits the field errors in one answer, because they are sent in a header.
const MaxFieldErrors = 100

// Errorf returns a gRPC status error with a Problem: the title, the code's HTTP status, and the formatted detail.
func Errorf(code codes.Code, title, format string, args ...any) error {
	return problemError(code, &carav1.Problem{Title: title, Detail: fmt.Sprintf(format, args...)})
}

// Invalid returns the INVALID_ARGUMENT error for an object with errors in fields. what names the object, such as `project
// "web"`.
func Invalid(what string, fields []*carav1.FieldError) error {
	detail := what + " is invalid"
	if len(fields) > 0 {
		detail += ": " + fieldText(fields[0])
	}
	if n := len(fields) - 1; n > 0 {
		detail += fmt.Sprintf(" (and %d more)", n)
	}
	if len(fields) > MaxFieldErrors {
		fields = fields[:MaxFieldErrors]
	}
	return problemError(codes.InvalidArgument, &carav1.Problem{Title: TitleInvalid, Detail: detail, Errors: fields})
}

// Field returns a list with one field error, for Invalid.
func Field(field, format string, args ...any) []*carav1.FieldError {
	return []*carav1.FieldError{{Field: field, Message: fmt.Sprintf(format, args...)}}
}

// Element returns the path of an element of a repeated field: `services[2]`.
func Element(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

func fieldText(f *carav1.FieldError) string {
	if f.GetField() == "" {
		return f.GetMessage()
	}
	return f.GetField() + ": " + f.GetMessage()
}

func problemError(code codes.Code, p *carav1.Problem) error {
	p.Status = int32(HTTPStatus(code))
	s := status.New(code, p.GetDetail())
	detailed, err := s.WithDetails(p)
	if err != nil {
		// Encoding a Problem does not fail. Only codes.OK rejects details, and the result must still be an error.
		return status.Error(codes.Internal, p.GetDetail())
	}
	return detailed.Err()
}

// ProblemOf returns the Problem in an error, or one made from its gRPC code and message. It returns nil for nil.
func ProblemOf(err error) *carav1.Problem {
	if err == nil {
		return nil
	}
	s := statusOf(err)
	for _, d := range s.Details() {
		if p, ok := d.(*carav1.Problem); ok {
			return p
		}
	}
	return &carav1.Problem{Title: titleOf(s.Code()), Status: int32(HTTPStatus(s.Code())), Detail: s.Message()}
}

// statusOf returns the status in a chain of wrapped errors, with the message of the status and not of the wrapping.
func statusOf(err error) *status.Status {
	var g interface{ GRPCStatus() *status.Status }
	if errors.As(err, &g) && g.GRPCStatus() != nil {
		return g.GRPCStatus()
	}
	return status.FromContextError(err)
}

// Wire returns err as a status that may be sent to a client. Errors of contexts get their codes; any other error without a
// status becomes Internal. It returns nil for nil.
func Wire(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if s := status.FromContextError(err); s.Code() != codes.Unknown {
		return s.Err()
	}
	return Internal("%v", err)
}

// Code returns the gRPC code of an error or of an error that it wraps; OK for nil.
func Code(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return statusOf(err).Code()
}

// IsNotFound reports whether the object does not exist.
func IsNotFound(err error) bool { return Code(err) == codes.NotFound }

// IsConflict reports whether a precondition failed: read and decide again.
func IsConflict(err error) bool { return Code(err) == codes.Aborted }

// IsGone reports whether a watch is too far behind: list again.
func IsGone(err error) bool { return Code(err) == codes.OutOfRange }

type codeRow struct {
	status int
	title  string
}

var codeRows = map[codes.Code]codeRow{ //nolint:gochecknoglobals // a table that never changes
	codes.OK:                 {http.StatusOK, ""},
	codes.InvalidArgument:    {http.StatusBadRequest, TitleInvalid},
	codes.NotFound:           {http.StatusNotFound, TitleNotFound},
	codes.AlreadyExists:      {http.StatusConflict, TitleAlreadyExists},
	codes.Aborted:            {http.StatusConflict, TitleConflict},
	codes.FailedPrecondition: {http.StatusConflict, TitleConflict},
	codes.PermissionDenied:   {http.StatusForbidden, TitleForbidden},
	codes.Unauthenticated:    {http.StatusUnauthorized, TitleUnauthenticated},
	codes.OutOfRange:         {http.StatusGone, TitleGone},
	codes.ResourceExhausted:  {http.StatusTooManyRequests, TitleTooMany},
	codes.Unavailable:        {http.StatusServiceUnavailable, TitleUnavailable},
	codes.DeadlineExceeded:   {http.StatusGatewayTimeout, TitleTimeout},
	codes.Canceled:           {499, TitleTimeout},
	codes.Unimplemented:      {http.StatusNotImplemented, TitleUnimplemented},
}

func rowOf(code codes.Code) codeRow {
	row, known := codeRows[code]
	if !known {
		return codeRow{http.StatusInternalServerError, TitleInternal}
	}
	return row
}

// HTTPStatus returns the HTTP status for a gRPC code.
func HTTPStatus(code codes.Code) int { return rowOf(code).status }

func titleOf(code codes.Code) string { return rowOf(code).title }

// Errors by kind: each function sets the gRPC code and the Problem's title, which tell the caller how to react. The texts
// are for people and say what to do next.

// NotFound means that an object does not exist.
func NotFound(format string, args ...any) error {
	return Errorf(codes.NotFound, TitleNotFound, format, args...)
}

// AlreadyExists means that an object already exists.
func AlreadyExists(format string, args ...any) error {
	return Errorf(codes.AlreadyExists, TitleAlreadyExists, format, args...)
}

// Conflict means that something changed concurrently: read and decide again.
func Conflict(format string, args ...any) error {
	return Errorf(codes.Aborted, TitleConflict, format, args...)
}

// Terminating means that the object is being deleted.
func Terminating(format string, args ...any) error {
	return Errorf(codes.Aborted, TitleTerminating, format, args...)
}

// TakenOver means that a newer connection of the same agent replaced this one.
func TakenOver(format string, args ...any) error {
	return Errorf(codes.Aborted, TitleTakenOver, format, args...)
}

// Gone means that a revision is no longer in the store: list again.
func Gone(format string, args ...any) error {
	return Errorf(codes.OutOfRange, TitleGone, format, args...)
}

// BadRequest means that a request is invalid for a reason that is not a field of an object; see Invalid.
func BadRequest(format string, args ...any) error {
	return Errorf(codes.InvalidArgument, TitleInvalid, format, args...)
}

// BadState means that the state of the object does not allow the operation.
func BadState(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleConflict, format, args...)
}

// Owned means that the project has another owner.
func Owned(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleOwned, format, args...)
}

// AdoptionRequired means that spec.adopt does not allow the source to take the project.
func AdoptionRequired(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleAdoptionRequired, format, args...)
}

// Overridden means that a person's override is active.
func Overridden(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleOverridden, format, args...)
}

// Expired means that the project's expireAt has passed.
func Expired(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleExpired, format, args...)
}

// Unauthenticated means that the caller is not authenticated.
func Unauthenticated(format string, args ...any) error {
	return Errorf(codes.Unauthenticated, TitleUnauthenticated, format, args...)
}

// Forbidden means that the caller may not do this.
func Forbidden(format string, args ...any) error {
	return Errorf(codes.PermissionDenied, TitleForbidden, format, args...)
}

// NotAllowed means a reserved host, a Secret of a source, or something that the source's spec.allow does not list.
func NotAllowed(format string, args ...any) error {
	return Errorf(codes.PermissionDenied, TitleNotAllowed, format, args...)
}

// TooMany means that a limit of calls or streams is reached.
func TooMany(format string, args ...any) error {
	return Errorf(codes.ResourceExhausted, TitleTooMany, format, args...)
}

// TooLarge means that a message or a body exceeds its limit.
func TooLarge(format string, args ...any) error {
	return Errorf(codes.ResourceExhausted, TitleTooLarge, format, args...)
}

// Unavailable means that the caller should try again later.
func Unavailable(format string, args ...any) error {
	return Errorf(codes.Unavailable, TitleUnavailable, format, args...)
}

// Timeout means that the deadline of the call has passed.
func Timeout(format string, args ...any) error {
	return Errorf(codes.DeadlineExceeded, TitleTimeout, format, args...)
}

// Unimplemented means that the method does not exist.
func Unimplemented(format string, args ...any) error {
	return Errorf(codes.Unimplemented, TitleUnimplemented, format, args...)
}

// Internal means a bug or a failure in Cara itself.
func Internal(format string, args ...any) error {
	return Errorf(codes.Internal, TitleInternal, format, args...)
}
