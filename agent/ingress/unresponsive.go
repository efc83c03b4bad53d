package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// A service may take minutes to answer, and an event stream may be silent for hours. So a request to another node does not show whether
// the agent there still works: a process that is stopped or hangs keeps its connections. While requests to a node last, a new connection
// to its agent is opened from time to time, one for all of them. If that takes too long repeatedly, the requests are given up.

// maxTimeouts is how many connections in a row must take too long.
const maxTimeouts = 2

// unresponsive means that the agent of another node does not answer any more. The service may have got the request.
type unresponsive struct{ node string }

func (u *unresponsive) Error() string {
	return fmt.Sprintf("the agent of node %s does not answer", u.node)
}

// peerWatch finds out whether the agents of other nodes answer.
type peerWatch struct {
	every time.Duration // between the connections to a node
	dial  func(ctx context.Context, node string, protocols ...string) (net.Conn, error)

	mu    sync.Mutex
	nodes map[string]*watchedNode // those that requests are sent to
}

func newPeerWatch(every time.Duration, dial func(ctx context.Context, node string, protocols ...string) (net.Conn, error)) *peerWatch {
	return &peerWatch{every: every, dial: dial, nodes: map[string]*watchedNode{}}
}

// watchedNode is a node that requests are sent to.
type watchedNode struct {
	// ctx ends when the agent does not answer any more, or after the last request.
	ctx      context.Context //nolint:containedctx // all requests to the node share it
	end      context.CancelCauseFunc
	start    *time.Timer // of the checks
	requests int         // guarded by peerWatch.mu
}

// watch returns a context that ends with ctx, with a call of end, or when the agent of the node does not answer any more. Without a call of
// end, the node is watched until ctx ends.
func (p *peerWatch) watch(ctx context.Context, node string) (watched context.Context, end func()) {
	n := p.enter(node)
	watched, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.ctx, func() { cancel(context.Cause(n.ctx)) })
	context.AfterFunc(watched, func() {
		stop()
		p.leave(node, n)
	})
	return watched, func() { cancel(nil) }
}

// enter counts a request to a node. The first one starts the checks.
func (p *peerWatch) enter(node string) *watchedNode {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nodes[node]
	if n == nil || n.ctx.Err() != nil { // its requests are given up
		n = &watchedNode{}
		//nolint:forbidigo // it outlives the first request, and must not keep what belongs to that
		n.ctx, n.end = context.WithCancelCause(context.Background())
		n.start = time.AfterFunc(p.every, func() { p.check(n, node) })
		p.nodes[node] = n
	}
	n.requests++
	return n
}

// leave ends the checks after the last request.
func (p *peerWatch) leave(node string, n *watchedNode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.requests--; n.requests > 0 {
		return
	}
	n.start.Stop()
	n.end(nil)
	if p.nodes[node] == n {
		delete(p.nodes, node)
	}
}

// check opens connections until the agent does not answer any more, or until there are no requests.
func (p *peerWatch) check(n *watchedNode, node string) {
	for timeouts := 0; timeouts < maxTimeouts; {
		c, err := p.dial(n.ctx, node)
		if err == nil {
			_ = c.Close() // errors do not matter: it has shown what it was for
		}
		// Other errors show nothing: the node may have left the table.
		if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
			timeouts++
		} else {
			timeouts = 0
		}
		if timeouts < maxTimeouts && !sleep(n.ctx, p.every) {
			return
		}
	}
	n.end(&unresponsive{node})
}
