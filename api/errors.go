package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Titles of problems. A client may switch on them; the detail is for people.
const (
	TitleInvalid         = "Invalid"
	TitleNotFound        = "NotFound"
	TitleAlreadyExists   = "AlreadyExists"
	TitleConflict        = "Conflict"
	TitleOwned           = "Owned"
	TitleForbidden       = "Forbidden"
	TitleNotAllowed      = "NotAllowed" // a reserved host, a source's own Secret, or what spec.allow of the source does not list
	TitleUnauthenticated = "Unauthenticated"
	TitleGone            = "Gone"
	TitleTooMany         = "TooManyRequests"
	TitleUnavailable     = "Unavailable"
	TitleTimeout         = "Timeout"
	TitleUnimplemented   = "Unimplemented"
	TitleInternal        = "Internal"
	TitleTooLarge        = "TooLarge"

	TitleMethodNotAllowed = "MethodNotAllowed"
	TitleAdoptionRequired = "AdoptionRequired" // spec.adopt of the source does not let it take this project
	TitleExpired          = "Expired"          // the project's expireAt has passed
	TitleOverridden       = "Overridden"       // a person's override is in force
	TitleStaleEpoch       = "StaleEpoch"       // the project has been assigned again since
	TitleStaleGeneration  = "StaleGeneration"  // the spec has changed since
	TitleTakenOver        = "TakenOver"        // a newer connection of the same agent took this one's place
	TitleTerminating      = "Terminating"      // the object is being deleted
)

// maxFieldErrors bounds how many field errors one answer carries: they ride in a header.
const maxFieldErrors = 100

// Errorf returns a gRPC status error that carries a Problem with the title, the code's HTTP status, and the formatted
// detail.
func Errorf(code codes.Code, title, format string, args ...any) error {
	return problemError(code, &carav1.Problem{Title: title, Detail: fmt.Sprintf(format, args...)})
}

// Invalid returns the INVALID_ARGUMENT error for an object, with what is wrong field by field. what names the object,
// such as `project "web"`.
func Invalid(what string, fields []*carav1.FieldError) error {
	detail := what + " is invalid"
	if len(fields) > 0 {
		detail += ": " + fieldText(fields[0])
	}
	if n := len(fields) - 1; n > 0 {
		detail += fmt.Sprintf(" (and %d more)", n)
	}
	if len(fields) > maxFieldErrors {
		fields = fields[:maxFieldErrors]
	}
	return problemError(codes.InvalidArgument, &carav1.Problem{Title: TitleInvalid, Detail: detail, Errors: fields})
}

// Field returns the one error of a field, for Invalid.
func Field(field, format string, args ...any) []*carav1.FieldError {
	return []*carav1.FieldError{{Field: field, Message: fmt.Sprintf(format, args...)}}
}

// Element names an element of a repeated field: `services[2]`.
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
		// A Problem always encodes; only codes.OK refuses details, and an error must stay an error then.
		return status.Error(codes.Internal, p.GetDetail())
	}
	return detailed.Err()
}

// ProblemOf returns the Problem that an error carries, or one made from its gRPC code and message. Nil for nil.
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

// statusOf finds the status in a chain of wrapped errors without letting the wrapping words replace its message.
func statusOf(err error) *status.Status {
	var g interface{ GRPCStatus() *status.Status }
	if errors.As(err, &g) && g.GRPCStatus() != nil {
		return g.GRPCStatus()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, err.Error())
	}
	return status.New(codes.Unknown, err.Error())
}

// Wire returns err as a status that may leave the server. The errors of contexts get their codes; any other error
// without a status becomes Internal. Nil for nil.
func Wire(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	default:
		return Internal("%v", err)
	}
}

// Code returns the gRPC code of an error, looking through wrapping; OK for nil.
func Code(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return statusOf(err).Code()
}

// IsNotFound reports whether the object is not there.
func IsNotFound(err error) bool { return Code(err) == codes.NotFound }

// IsConflict reports whether a precondition no longer held: read again, decide again.
func IsConflict(err error) bool { return Code(err) == codes.Aborted }

// IsGone reports whether a watch fell too far behind: list again.
func IsGone(err error) bool { return Code(err) == codes.OutOfRange }

type codeRow struct {
	status int
	title  string
}

func rowOf(code codes.Code) codeRow {
	switch code {
	case codes.OK:
		return codeRow{http.StatusOK, ""}
	case codes.InvalidArgument:
		return codeRow{http.StatusBadRequest, TitleInvalid}
	case codes.NotFound:
		return codeRow{http.StatusNotFound, TitleNotFound}
	case codes.AlreadyExists:
		return codeRow{http.StatusConflict, TitleAlreadyExists}
	case codes.Aborted, codes.FailedPrecondition:
		return codeRow{http.StatusConflict, TitleConflict}
	case codes.PermissionDenied:
		return codeRow{http.StatusForbidden, TitleForbidden}
	case codes.Unauthenticated:
		return codeRow{http.StatusUnauthorized, TitleUnauthenticated}
	case codes.OutOfRange:
		return codeRow{http.StatusGone, TitleGone}
	case codes.ResourceExhausted:
		return codeRow{http.StatusTooManyRequests, TitleTooMany}
	case codes.Unavailable:
		return codeRow{http.StatusServiceUnavailable, TitleUnavailable}
	case codes.DeadlineExceeded:
		return codeRow{http.StatusGatewayTimeout, TitleTimeout}
	case codes.Canceled:
		return codeRow{499, TitleTimeout}
	case codes.Unimplemented:
		return codeRow{http.StatusNotImplemented, TitleUnimplemented}
	case codes.Unknown, codes.Internal, codes.DataLoss:
		return codeRow{http.StatusInternalServerError, TitleInternal}
	}
	return codeRow{http.StatusInternalServerError, TitleInternal}
}

// HTTPStatus returns the HTTP status that answers a gRPC code.
func HTTPStatus(code codes.Code) int { return rowOf(code).status }

func titleOf(code codes.Code) string { return rowOf(code).title }
