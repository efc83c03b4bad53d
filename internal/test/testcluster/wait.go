package testcluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Fatal marks an error after which waiting is useless.
func Fatal(err error) error { return fatal{err} }

type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

// The pause between two calls of a condition: a tenth of the time that was waited so far, within these bounds. The
// condition asks a server, an engine or a program, and must not take the machine from what it waits for.
const (
	minPause = 20 * time.Millisecond
	maxPause = 250 * time.Millisecond
)

// Pause waits for a time, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WaitFor calls cond repeatedly until it returns nil or a Fatal error, or ctx ends. The error has what and the last error
// of cond.
func WaitFor(ctx context.Context, what string, cond func(context.Context) error) error {
	began := time.Now()
	last := errors.New("never asked")
	for {
		err := cond(ctx)
		if err == nil {
			return nil
		}
		if errors.As(err, new(fatal)) {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if ctx.Err() == nil {
			last = err
		}
		if err := Pause(ctx, min(max(time.Since(began)/10, minPause), maxPause)); err != nil {
			return fmt.Errorf("wait until %s: %w; last: %w", what, err, last)
		}
	}
}
