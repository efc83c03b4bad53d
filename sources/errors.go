package sources

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
)

// ErrMoved means that the source changed while it was read. It is read again immediately, and nothing is reported.
var ErrMoved = errors.New("the source changed while it was read")

// Error is why a source could not be read. Its text is for users and contains no credentials.
type Error struct {
	// Reason of the condition FetchFailed.
	Reason api.Reason
	// Message says what is wrong and what to do.
	Message string
	// Human is true if the error persists until a person changes something. The source is then retried once per interval,
	// otherwise sooner and with backoff.
	Human bool
	// RetryAfter is how long the server asked to wait.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Message }

// Human returns an Error that a person must fix.
func Human(reason api.Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...), Human: true}
}

// Retry returns an Error that may go away.
func Retry(reason api.Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// FileError is why one file of an otherwise readable source cannot be a manifest. It is reported as a problem of that file.
type FileError struct {
	Message string
	// Absent is true if nothing has this path.
	Absent bool
	// TooMany is true for a folder with more than MaxFound files.
	TooMany bool
}

func (e *FileError) Error() string { return e.Message }

// readError prepares a driver's error for the report. An error that the driver does not explain also means that the source
// was not read, so FetchFailed must report it. format names the step and the place.
func readError(ctx context.Context, err error, format string, args ...any) error {
	if _, known := errors.AsType[*Error](err); err == nil || known || errors.Is(err, ErrMoved) || ctx.Err() != nil {
		return err
	}
	return Retry(api.ReasonReadFailed, "%s: %s", fmt.Sprintf(format, args...), text.Clip(err.Error(), 1000))
}

// safely calls a driver and turns a panic into an error of this read. Drivers process untrusted input.
func safely[T any](do func() (T, error)) (result T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the reader panicked: %v", r)
		}
	}()
	return do()
}
