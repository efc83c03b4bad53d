package sources

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
)

// ErrMoved says that the source changed while it was read. It is read again at once and nothing is reported.
var ErrMoved = errors.New("the source changed while it was read")

// Error is why a source could not be read. Its text is for people: what is missing, and what to do. It holds no
// credentials.
type Error struct {
	// Reason of the condition FetchFailed.
	Reason api.Reason
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
func Human(reason api.Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...), Human: true}
}

// Retry returns an Error that may mend itself.
func Retry(reason api.Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// FileError is why one file of an otherwise readable source cannot be a manifest. It becomes a problem of that file.
type FileError struct{ Message string }

func (e *FileError) Error() string { return e.Message }

// readError makes what a driver returned fit for a report. A driver explains the errors that it knows. Any other error
// means the same for the source: it was not read, and FetchFailed must say so. what names the step and the place.
func readError(ctx context.Context, err error, format string, args ...any) error {
	if _, known := errors.AsType[*Error](err); err == nil || known || errors.Is(err, ErrMoved) || ctx.Err() != nil {
		return err
	}
	return Retry(api.ReasonReadFailed, "%s: %s", fmt.Sprintf(format, args...), text.Clip(err.Error(), 1000))
}

// safely calls a driver. A driver reads what strangers push: if it panics, that is an error of this read alone.
func safely(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the reader panicked: %v", r)
		}
	}()
	return do()
}
