package sources

import (
	"errors"
	"fmt"
	"time"
)

// Reasons of the FetchFailed condition.
const (
	ReasonUnreachable     = "Unreachable"
	ReasonAuthFailed      = "AuthFailed"
	ReasonHostKey         = "HostKeyRefused"
	ReasonNotFound        = "RepositoryNotFound"
	ReasonRefNotFound     = "RefNotFound"
	ReasonPathNotFound    = "PathNotFound"
	ReasonEmptyRepository = "EmptyRepository"
	ReasonUnavailable     = "DirectoryUnavailable"
	ReasonTooLarge        = "TooLarge"
	ReasonInvalidSpec     = "InvalidSpec"
	ReasonRefused         = "AddressRefused"
	ReasonProtocol        = "ProtocolError"
)

// ErrMoved says that the source changed while it was read. The pass is done again soon and nothing is reported.
var ErrMoved = errors.New("the source changed while it was read")

// Error is why a source could not be read. Its text is for people: what is missing, and what to do. It holds no
// credentials.
type Error struct {
	// Reason is one of the Reason constants.
	Reason string
	// Message says what is missing and what to do.
	Message string
	// Human is true where it stays broken until a person changes something: it is then looked at once per interval.
	// Otherwise it is retried sooner, with backoff.
	Human bool
	// RetryAfter is how long the other side asked to be left alone.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Message }

// Human returns an Error that a person must mend.
func Human(reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...), Human: true}
}

// Retry returns an Error that may mend itself.
func Retry(reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// FileError is why one file of an otherwise readable source cannot be a manifest. It becomes a problem of that file.
type FileError struct{ Message string }

func (e *FileError) Error() string { return e.Message }
