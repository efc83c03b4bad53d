package fakecluster

import (
	"context"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// Refusing is a connection on which a loop's writes have no effect. It forwards reads (Get and Watch). Every other call
// returns the result of Answer: an error, or an empty success. It counts those calls, so that a test can check that an
// unsuccessful loop waits between them.
type Refusing struct {
	grpc.ClientConnInterface
	// Answer is called for each write; nil means an empty success.
	Answer func(method string) error

	mu    sync.Mutex
	calls map[string]int
}

// Calls returns the number of calls of each method.
func (s *Refusing) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// The maximum work of a loop on one key in a minute if every write changes the key. See the budget of a loop.Queue.
const (
	MostChanges  = 300 + 60*20 + 10
	MostFailures = 300/20 + 60 + 5 // if the work also fails
)

// BusyLength is how long a test watches a loop: ten minutes, or one if every write changes the key.
func BusyLength(changes bool) time.Duration {
	if changes {
		return time.Minute
	}
	return 10 * time.Minute
}

// AtMost fails the test if a method was called more than most times, or if a needed method was never called.
func (s *Refusing) AtMost(tb testing.TB, most int, needed ...string) {
	tb.Helper()
	calls := s.Calls()
	tb.Log(calls)
	for _, method := range needed {
		if calls[method] == 0 {
			tb.Errorf("%s was never called", method)
		}
	}
	for method, n := range calls {
		if n > most {
			tb.Errorf("%s was called %d times, want at most %d", method, n, most)
		}
	}
}

// endless is how many calls of a method get an answer. Later calls block, so that a busy loop fails its test instead of
// hanging it.
const endless = 50_000

// answer reports whether the call is a write, and returns its result.
func (s *Refusing) answer(ctx context.Context, fullMethod string) (write bool, err error) {
	method := fullMethod[strings.LastIndexByte(fullMethod, '/')+1:]
	if strings.HasPrefix(method, "Get") || method == "Watch" {
		return false, nil
	}
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[method]++
	n := s.calls[method]
	s.mu.Unlock()
	if n > endless {
		<-ctx.Done()
		return true, ctx.Err()
	}
	if s.Answer != nil {
		err = s.Answer(method)
	}
	return true, err
}

// Invoke implements grpc.ClientConnInterface.
func (s *Refusing) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if write, err := s.answer(ctx, method); write {
		return err
	}
	return s.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface. A stream for a write ends immediately.
func (s *Refusing) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if write, err := s.answer(ctx, method); write {
		return ended{ctx: ctx, serverStream: desc.ServerStreams}, err
	}
	return s.ClientConnInterface.NewStream(ctx, desc, method, opts...)
}

// ended is a stream that accepts messages and returns none.
type ended struct {
	grpc.ClientStream
	ctx          context.Context //nolint:containedctx // the context of the stream
	serverStream bool
}

func (e ended) Context() context.Context { return e.ctx }
func (e ended) SendMsg(any) error        { return nil }
func (e ended) CloseSend() error         { return nil }

func (e ended) RecvMsg(any) error {
	if e.serverStream {
		return io.EOF
	}
	return nil
}
