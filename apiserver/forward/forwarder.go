package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caravanserai/cara/apiserver/identity"
)

const (
	dialTimeout = 3 * time.Second        // of one attempt to reach the active server
	dialAgain   = 200 * time.Millisecond // it may be about to listen
	// hold is how long a new connection waits for an active server.
	hold = 5 * time.Second
	// watchAgain is how often a server that cannot be watched is tried again.
	watchAgain = time.Second
	noProtocol = "no application protocol" // the alert of a server that is not active
)

// errNotActive means that the other server does not take forwarded connections: it is a standby, or of an older version.
var errNotActive = errors.New("it is not active, or of an older version")

// Config configures a Forwarder.
type Config struct {
	// ID names this server to the active one: letters, digits and dashes.
	ID       string
	Identity *identity.Identity
	Logger   *slog.Logger
	// Gone is called when a server that was active has ended and has not said that it shuts down: nothing listens at its address
	// any more, or it is a standby. It is not called for a server that is only silent.
	Gone func(holder string)
	// Keep takes connections that were not passed on when a Listener closes, for the next listener at that address. If it is nil,
	// they are closed.
	Keep func(net.Conn)
}

// Forwarder is the standby's side.
type Forwarder struct {
	cfg      Config
	peers    *tls.Config // of connections to the active server
	watchers sync.WaitGroup

	mu      sync.Mutex
	to      *target       // nil while no active server is known
	changed chan struct{} // closed and replaced with to
}

// target is an active server.
type target struct {
	holder, address string
	ctx             context.Context //nolint:containedctx // the time in which it is the active one; its connections end with it
	stop            context.CancelFunc
}

// New returns a forwarder that knows no active server.
func New(cfg Config) *Forwarder {
	return &Forwarder{cfg: cfg, peers: cfg.Identity.PeerTLSConfig(Protocol), changed: make(chan struct{})}
}

// Point says which server is active from now on. holder tells it from an earlier start of the same server. An empty address
// means that its address is not known. Connections to another server are closed. It watches the server until ctx ends or
// Point is called for another one.
func (f *Forwarder) Point(ctx context.Context, holder, address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.to != nil && f.to.holder == holder {
		return
	}
	if f.to != nil {
		f.to.stop()
		f.to = nil
	}
	if address != "" {
		t := &target{holder: holder, address: address}
		t.ctx, t.stop = context.WithCancel(ctx)
		f.to = t
		f.watchers.Go(func() { f.watch(t) })
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// Close closes all connections to the active server. Point must not be called after it.
func (f *Forwarder) Close() {
	f.mu.Lock()
	if f.to != nil {
		f.to.stop()
	}
	f.mu.Unlock()
	f.watchers.Wait()
}

// active returns the active server, or nil, and a channel that is closed when another one is active.
func (f *Forwarder) active() (*target, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.to, f.changed
}

// open returns a connection to the active server that carries h. It waits for an active server. The result ends with the
// target.
func (f *Forwarder) open(ctx context.Context, h header) (*target, *tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	reason := errors.New("no active server is known")
	for {
		to, changed := f.active()
		if to != nil {
			conn, err := f.dial(ctx, to, h)
			if err == nil {
				return to, conn, nil
			}
			reason = err
		}
		select {
		case <-changed:
		case <-time.After(dialAgain):
		case <-ctx.Done():
			return nil, nil, reason
		}
	}
}

func (f *Forwarder) dial(ctx context.Context, to *target, h header) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer context.AfterFunc(to.ctx, cancel)() //nolint:contextcheck // it also ends with the target
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.address)
	if err != nil {
		return nil, fmt.Errorf("connect to the active server: %w", err)
	}
	conn := tls.Client(raw, f.peers)
	err = conn.HandshakeContext(ctx)
	if err == nil {
		h.via = f.cfg.ID
		err = h.write(conn)
	}
	if err != nil {
		_ = raw.Close() // the error counts
		if strings.Contains(err.Error(), noProtocol) {
			err = errNotActive
		}
		return nil, fmt.Errorf("connect to the active server at %s: %w", to.address, err)
	}
	return conn, nil
}

// watch keeps a connection to the active server, and notices at once when its program has ended.
func (f *Forwarder) watch(to *target) {
	for seen := false; to.ctx.Err() == nil; {
		conn, err := f.dial(to.ctx, to, header{kind: kindWatch})
		switch {
		case err == nil:
			seen = true
			began := time.Now()
			if f.attend(to, conn) {
				return
			}
			if time.Since(began) > watchAgain {
				continue // connect again at once, to find out why it has ended
			}
		case seen && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errNotActive)):
			f.cfg.Logger.Warn("the active server has ended", "address", to.address)
			f.cfg.Gone(to.holder)
			return
		}
		select {
		case <-time.After(watchAgain):
		case <-to.ctx.Done():
		}
	}
}

// attend waits until the connection ends. It reports whether the server has said that it shuts down.
func (f *Forwarder) attend(to *target, conn *tls.Conn) bool {
	defer context.AfterFunc(to.ctx, func() { _ = conn.NetConn().Close() })()
	n, _ := conn.Read(make([]byte, 1)) // how it ends does not matter
	_ = conn.NetConn().Close()
	return n > 0 || to.ctx.Err() != nil
}
