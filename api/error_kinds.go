package api

import "google.golang.org/grpc/codes"

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
