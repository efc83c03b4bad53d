package ports

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// queuedDatagrams and queuedBytes limit what waits for the connection of one session to another agent. allQueuedBytes
	// limits it for all sessions.
	queuedDatagrams = 128
	queuedBytes     = 512 << 10
	allQueuedBytes  = 64 << 20
	// maxDialing limits how many connections are opened at the same time. A client can forge addresses, and each address is a
	// session.
	maxDialing = 32
)

// stream leads to a service through the agent of another node. Each session has a connection of its own, which is opened
// for a datagram, and again for a later datagram if it breaks.
type stream struct {
	session *session
	to      target
	cancel  context.CancelFunc
	queue   chan []byte         // frames
	own     *semaphore.Weighted // bytes

	mu     sync.Mutex
	closed bool
}

func (s *session) openStream(ctx context.Context, to target) *stream {
	ctx, cancel := context.WithCancel(ctx)
	u := &stream{session: s, to: to, cancel: cancel, queue: make(chan []byte, queuedDatagrams), own: semaphore.NewWeighted(queuedBytes)}
	s.tasks.Go(func() { u.run(ctx) })
	return u
}

// send drops the datagram if too much waits.
func (u *stream) send(datagram []byte) error {
	if len(datagram) > maxDatagram {
		return errTooLong
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	n := int64(len(datagram) + frameHeader)
	switch all := u.session.ports.queued; {
	case u.closed:
		return errClosed
	case !u.own.TryAcquire(n):
		return errSlow
	case !all.TryAcquire(n):
		u.own.Release(n)
		return errSlow
	}
	select {
	case u.queue <- frameOf(datagram):
		return nil
	default:
		u.taken(n)
		return errSlow
	}
}

// taken records that a frame waits no longer.
func (u *stream) taken(n int64) {
	u.own.Release(n)
	u.session.ports.queued.Release(n)
}

func (u *stream) close() {
	u.cancel()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	u.discard(nil)
}

// discard drops everything that waits, and counts it if there is an error.
func (u *stream) discard(err error) {
	for {
		select {
		case frame := <-u.queue:
			u.taken(int64(len(frame)))
			if err != nil {
				u.drop(err)
			}
		default:
			return
		}
	}
}

func (u *stream) drop(err error) {
	u.session.ports.drop(u.session.key, u.session.project, u.session.client, err)
}

// run carries datagrams until ctx ends. After an error, it waits before the next attempt, so that a client does not make this
// agent call a node all the time.
func (u *stream) run(ctx context.Context) {
	for {
		var first []byte
		select {
		case first = <-u.queue:
		case <-ctx.Done():
			return
		}
		u.taken(int64(len(first)))
		err := u.carry(ctx, first)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			u.drop(err)
			u.discard(err)
			select {
			case <-time.After(reachAgain):
			case <-ctx.Done():
				return
			}
		}
	}
}

// dial opens a connection to the agent of the other node.
func (u *stream) dial(ctx context.Context) (*tls.Conn, error) {
	s := u.session
	ctx, cancel := context.WithTimeout(ctx, s.ports.cfg.Limits.Hold)
	defer cancel()
	select {
	case s.ports.dialing <- struct{}{}:
		defer func() { <-s.ports.dialing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: too many connections are being opened: %w", errNode, ctx.Err())
	}
	return s.ports.hop(ctx, &route{node: u.to.node, address: u.to.host}, &carav1.PortConnection{
		Protocol: s.key.Protocol, Port: s.key.Port, Scope: s.key.Scope, Project: s.project, Client: s.client.String(),
	})
}

// carry opens a connection and carries datagrams in both directions until it ends. An error means that a datagram was dropped.
func (u *stream) carry(ctx context.Context, frame []byte) error {
	s := u.session
	conn, err := u.dial(ctx)
	if err != nil {
		return err
	}
	abort := sync.OnceFunc(func() { reset(conn) })
	defer abort()
	stop := context.AfterFunc(ctx, abort)
	defer stop()
	ended := make(chan struct{})
	s.tasks.Go(func() {
		defer close(ended)
		defer abort()                  // ends a write
		_ = readFrames(conn, s.answer) // whatever ended it, the next datagram opens another connection
	})
	for {
		if _, err := conn.Write(frame); err != nil {
			return fmt.Errorf("%w: %w", errNode, err)
		}
		select {
		case frame = <-u.queue:
			u.taken(int64(len(frame)))
		case <-ended:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
