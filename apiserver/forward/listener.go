package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/internal/connlimit"
	"github.com/caravanserai/cara/internal/sni"
)

const (
	// greeting is how long a new connection may take until it is known what it is.
	greeting = 10 * time.Second
	maxHello = 64 << 10 // bytes of the first message of TLS
	// knownAfter is how long the active server has kept a connection when the standby believes that its client has
	// authenticated. The active server ends earlier ones by its own limits.
	knownAfter = time.Minute
	tlsRecord  = 0x16 // the first byte of TLS
)

// Listener passes connections on to the active server. Accept returns those that cannot be passed on, so that they get an
// answer.
type Listener struct {
	net.Listener
	f      *Forwarder
	secure *tls.Config // of clients whose TLS ends here; shared, so that they can resume sessions
	left   chan net.Conn

	ctx    context.Context //nolint:containedctx // the listener's own life: net.Listener has no other way to end it
	cancel context.CancelCauseFunc
	begin  sync.Once
	wg     sync.WaitGroup
}

// Listen wraps a listener. It starts no goroutine.
func (f *Forwarder) Listen(ctx context.Context, inner net.Listener) *Listener {
	l := &Listener{Listener: inner, f: f, secure: f.cfg.Identity.TLSConfig(), left: make(chan net.Conn)}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return l
}

// Accept returns the next connection that cannot be passed on.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin.Do(func() { l.wg.Go(l.acceptAll) })
	select {
	case conn := <-l.left:
		return conn, nil
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	}
}

// Close stops accepting and closes all connections that are passed on. Those that are not yet are kept: see Config.Keep.
func (l *Listener) Close() error {
	l.begin.Do(func() {}) // after this, no Accept starts a goroutine that Wait would not wait for
	err := l.Listener.Close()
	l.cancel(net.ErrClosed)
	l.wg.Wait()
	return err
}

func (l *Listener) acceptAll() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if identity.Passing(l.ctx, err) {
				continue
			}
			l.cancel(err)
			return
		}
		l.wg.Go(func() { l.pass(conn) })
	}
}

// pass finds out what a connection is and passes it on, or leaves it to Accept. If the listener closes before that, the connection
// is kept: the client has no answer yet, and whoever listens next can give it one.
func (l *Listener) pass(raw net.Conn) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(l.ctx, func() {
		defer close(interrupted)
		_ = raw.SetReadDeadline(time.Now()) // ends look
	})
	kind, read, err := l.look(raw)
	if !stop() {
		<-interrupted
	}
	conn := identity.Started(raw, read)
	if err != nil && l.ctx.Err() == nil {
		_ = raw.Close() // a silent or closed connection gets no answer
		return
	}
	if kind != "" && l.ctx.Err() == nil {
		to, tunnel, err := l.f.open(l.ctx, header{kind: kind, client: clientOf(raw)})
		if err == nil {
			l.carry(to, conn, tunnel, kind)
			return
		}
		l.f.cfg.Logger.Debug("a connection was not passed on", "error", err)
	}
	select {
	case l.left <- conn:
	case <-l.ctx.Done():
		l.keep(conn)
	}
}

func (l *Listener) keep(conn net.Conn) {
	if err := conn.SetReadDeadline(time.Time{}); err != nil || l.f.cfg.Keep == nil {
		_ = conn.Close() // nobody listens next
		return
	}
	l.f.cfg.Keep(conn)
}

// look returns what a connection is, and the bytes that it has read. Plaintext from another machine has no kind: it is refused
// here.
func (l *Listener) look(raw net.Conn) (kind, []byte, error) {
	if err := raw.SetReadDeadline(time.Now().Add(greeting)); err != nil {
		return "", nil, err
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(raw, first); err != nil {
		return "", nil, err
	}
	if l.ctx.Err() != nil {
		return "", first, nil
	}
	found, read := kindPlain, first
	switch {
	case first[0] == tlsRecord:
		var host string
		host, read = sni.Peek(l.ctx, io.MultiReader(bytes.NewReader(first), raw), maxHello)
		if found = kindSecure; host == identity.ServerName {
			found = kindNode
		}
	case !identity.Local(raw):
		found = ""
	}
	return found, read, raw.SetReadDeadline(time.Time{})
}

// carry copies in both directions until the client or the active server ends the connection, or another server is active.
func (l *Listener) carry(to *target, client net.Conn, tunnel *tls.Conn, kind kind) {
	defer tunnel.NetConn().Close()
	defer client.Close()
	if kind == kindSecure {
		ended := tls.Server(client, l.secure)
		ctx, cancel := context.WithTimeout(l.ctx, greeting)
		err := ended.HandshakeContext(ctx)
		cancel()
		if err != nil {
			return
		}
		client = ended
	}
	cut := func() {
		_ = client.Close()
		_ = tunnel.NetConn().Close()
	}
	defer context.AfterFunc(to.ctx, cut)()
	defer context.AfterFunc(l.ctx, cut)()
	if counted := connlimit.Of(client); counted != nil {
		defer time.AfterFunc(knownAfter, counted.Known).Stop()
	}
	var up sync.WaitGroup
	defer up.Wait()
	up.Go(func() {
		if _, err := io.Copy(tunnel, client); err != nil || tunnel.CloseWrite() != nil {
			cut()
		}
	})
	_, _ = io.Copy(client, tunnel) // how it ends does not matter: the connection is over
	if half, ok := client.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // so that the client reads all that was sent before it sees the end
	}
	cut()
}
