package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/singleflight"
)

// A service may take minutes to answer, and an event stream may be silent for hours. So a request to another node does not show whether
// the agent there still works: a process that is stopped or hangs keeps its connections. While a request lasts, a new connection to that
// agent is opened from time to time. If that takes too long repeatedly, the request is given up.

// strikes is how many connections in a row must take too long.
const strikes = 2

// frozen means that the agent of another node does not answer any more. The service may have got the request.
type frozen struct{ node string }

func (f *frozen) Error() string { return fmt.Sprintf("the agent of node %s does not answer", f.node) }

// lookout finds out whether the agents of other nodes answer.
type lookout struct {
	every time.Duration // between the connections that one request causes
	dial  func(ctx context.Context, node string, protocols ...string) (net.Conn, error)
	dials singleflight.Group // by node: its requests share a connection
}

// watch returns a context that ends with ctx, or when the agent of the node does not answer any more. enough ends the watch of a request
// that has failed; otherwise it ends with ctx.
func (l *lookout) watch(ctx context.Context, node string) (watched context.Context, enough func()) {
	watched, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(l.every, func() {
		if l.lost(watched, node) {
			cancel(&frozen{node})
		}
	})
	enough = func() { timer.Stop() }
	context.AfterFunc(watched, enough)
	return watched, enough
}

// lost returns true when the agent does not answer any more, and false when ctx has ended.
func (l *lookout) lost(ctx context.Context, node string) bool {
	for failed := 0; ; {
		_, err, _ := l.dials.Do(node, func() (any, error) {
			c, err := l.dial(ctx, node)
			if err != nil {
				return nil, err
			}
			return nil, c.Close()
		})
		// Other errors show nothing: the node may have left the table, or another request has ended.
		if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
			failed++
		} else {
			failed = 0
		}
		if failed == strikes {
			return true
		}
		if !sleep(ctx, l.every) {
			return false
		}
	}
}
