package api

import "google.golang.org/grpc/codes"

// Errors by their kind: what the caller should do about each, its gRPC code and its Problem's title. The texts are for people and say what to do
// next.

// NotFound says that an object is not there.
func NotFound(format string, args ...any) error {
	return Errorf(codes.NotFound, TitleNotFound, format, args...)
}

// AlreadyExists says that an object is there already.
func AlreadyExists(format string, args ...any) error {
	return Errorf(codes.AlreadyExists, TitleAlreadyExists, format, args...)
}

// Conflict says that something else changed meanwhile: read again, and decide again.
func Conflict(format string, args ...any) error {
	return Errorf(codes.Aborted, TitleConflict, format, args...)
}

// Terminating says that the object is being deleted.
func Terminating(format string, args ...any) error {
	return Errorf(codes.Aborted, TitleTerminating, format, args...)
}

// TakenOver says that a newer connection of the same agent took the place of this one.
func TakenOver(format string, args ...any) error {
	return Errorf(codes.Aborted, TitleTakenOver, format, args...)
}

// Gone says that a revision is no longer in the store: list again.
func Gone(format string, args ...any) error {
	return Errorf(codes.OutOfRange, TitleGone, format, args...)
}

// BadRequest refuses a request for a reason that is no field of an object; see Invalid.
func BadRequest(format string, args ...any) error {
	return Errorf(codes.InvalidArgument, TitleInvalid, format, args...)
}

// BadState says that the object is in a state that does not allow this.
func BadState(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleConflict, format, args...)
}

// Owned says that somebody else owns the project.
func Owned(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleOwned, format, args...)
}

// AdoptionRequired says that spec.adopt does not let the source take this project.
func AdoptionRequired(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleAdoptionRequired, format, args...)
}

// Overridden says that a person's override is in force.
func Overridden(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleOverridden, format, args...)
}

// Expired says that the project's expireAt has passed.
func Expired(format string, args ...any) error {
	return Errorf(codes.FailedPrecondition, TitleExpired, format, args...)
}

// Unauthenticated says that nobody knows who calls.
func Unauthenticated(format string, args ...any) error {
	return Errorf(codes.Unauthenticated, TitleUnauthenticated, format, args...)
}

// Forbidden says that the caller may not do this.
func Forbidden(format string, args ...any) error {
	return Errorf(codes.PermissionDenied, TitleForbidden, format, args...)
}

// NotAllowed refuses a reserved host, a source's own Secret, or what spec.allow of the source does not list.
func NotAllowed(format string, args ...any) error {
	return Errorf(codes.PermissionDenied, TitleNotAllowed, format, args...)
}

// TooMany says that a limit of calls or streams is reached.
func TooMany(format string, args ...any) error {
	return Errorf(codes.ResourceExhausted, TitleTooMany, format, args...)
}

// TooLarge says that a message or a body is over its limit.
func TooLarge(format string, args ...any) error {
	return Errorf(codes.ResourceExhausted, TitleTooLarge, format, args...)
}

// Unavailable says that it works later.
func Unavailable(format string, args ...any) error {
	return Errorf(codes.Unavailable, TitleUnavailable, format, args...)
}

// Timeout says that the time for the call is over.
func Timeout(format string, args ...any) error {
	return Errorf(codes.DeadlineExceeded, TitleTimeout, format, args...)
}

// Unimplemented says that there is no such method.
func Unimplemented(format string, args ...any) error {
	return Errorf(codes.Unimplemented, TitleUnimplemented, format, args...)
}

// Internal says that Cara itself failed.
func Internal(format string, args ...any) error {
	return Errorf(codes.Internal, TitleInternal, format, args...)
}
