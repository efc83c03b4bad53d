// Package guard starts the server's goroutines. When a push is processed, every call that uses more than one goroutine uses
// this package.
//
// Invariant: a panic in a goroutine without a recover ends the process and every open call. So apiserver and its
// subpackages start every goroutine here. TestGoroutinesAreGuarded in apiserver checks this. net/http recovers from panics
// of handlers by itself, but without an answer; HTTP gives the caller one.
package guard

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/api"
)

// Guard turns a panic into an Internal error and one log line with the stack.
type Guard struct{ Logger *slog.Logger }

// Panicked logs the value that recover returned and returns the error for the caller. what names the call.
func (g Guard) Panicked(what string, p any) error {
	g.Logger.Error("call panicked", "method", what, "panic", p, "stack", string(debug.Stack()))
	return api.Internal("the server made a mistake in %s; its log has the details", what)
}

// Do runs f.
func (g Guard) Do(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = g.Panicked(what, p)
		}
	}()
	return f()
}

// Go runs f in a goroutine and then passes its result to then, which must not panic. The channel is closed after that.
func (g Guard) Go(what string, f func() error, then func(error)) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		then(g.Do(what, f))
	}()
	return ended
}

// After runs f after the given time.
func (g Guard) After(what string, after time.Duration, f func()) {
	time.AfterFunc(after, func() { _ = g.Do(what, func() error { f(); return nil }) })
}

// AtEnd runs f when ctx ends, unless stop was called before.
func (g Guard) AtEnd(ctx context.Context, what string, f func()) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = g.Do(what, func() error { f(); return nil }) })
}

// Every runs f in this goroutine, now and again after each period, until ctx ends. It does not guard f: who starts the goroutine does.
func Every(ctx context.Context, period time.Duration, f func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		f()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Group is an errgroup whose goroutines are guarded: a panic in one of them is the error of Wait.
type Group struct {
	guard Guard
	what  string
	group *errgroup.Group
}

// Unlimited is the limit of a group whose goroutines are few by construction.
const Unlimited = -1

// Group returns a group that runs at most limit goroutines concurrently, and a context that ends with the first error.
func (g Guard) Group(ctx context.Context, what string, limit int) (Group, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(limit)
	return Group{g, what, group}, ctx
}

// Go runs f in a goroutine when fewer than limit goroutines run.
func (c Group) Go(f func() error) {
	c.group.Go(func() error { return c.guard.Do(c.what, f) })
}

// Wait waits until all goroutines have ended and returns the first error.
func (c Group) Wait() error { return c.group.Wait() }
