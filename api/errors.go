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

// maxFieldErrors limits the field errors in one answer, because they are sent in a header.
const maxFieldErrors = 100

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
	if len(fields) > maxFieldErrors {
		fields = fields[:maxFieldErrors]
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
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, err.Error())
	}
	return status.New(codes.Unknown, err.Error())
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
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	default:
		return Internal("%v", err)
	}
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

// HTTPStatus returns the HTTP status for a gRPC code.
func HTTPStatus(code codes.Code) int { return rowOf(code).status }

func titleOf(code codes.Code) string { return rowOf(code).title }
