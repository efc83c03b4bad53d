package apiserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"time"
)

// recordHandshake is the first byte of every TLS connection; no HTTP request begins with it.
const recordHandshake = 0x16

// sniffer serves TLS and plaintext on one port: the first byte decides. Plaintext is for this machine only, unless it
// is allowed. Looking at the byte may take a slow client a while, so each connection waits for itself.
type sniffer struct {
	net.Listener
	tls   *tls.Config
	plain bool
	conns chan net.Conn
	done  chan struct{}
}

func newSniffer(l net.Listener, cfg *tls.Config, plain bool) *sniffer {
	if cfg != nil {
		cfg = cfg.Clone()
		cfg.NextProtos = []string{"h2", "http/1.1"}
	}
	return &sniffer{Listener: l, tls: cfg, plain: plain, conns: make(chan net.Conn), done: make(chan struct{})}
}

// run takes connections until the listener closes or ctx ends.
func (s *sniffer) run(ctx context.Context) error {
	defer close(s.done)
	stop := context.AfterFunc(ctx, func() { s.Listener.Close() })
	defer stop()
	for {
		conn, err := s.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go s.look(ctx, conn)
	}
}

// look decides what a connection speaks and passes it on.
func (s *sniffer) look(ctx context.Context, conn net.Conn) {
	if s.tls != nil {
		speaks, err := s.peek(conn)
		if err != nil {
			conn.Close()
			return
		}
		conn = speaks
	}
	select {
	case s.conns <- conn:
	case <-s.done:
		conn.Close()
	case <-ctx.Done():
		conn.Close()
	}
}

var errPlaintext = errors.New("plaintext from another machine")

func (s *sniffer) peek(conn net.Conn) (net.Conn, error) {
	if err := conn.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 4096)
	first, err := r.Peek(1)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	peeked := &peekedConn{Conn: conn, r: r}
	switch {
	case first[0] == recordHandshake:
		return tls.Server(peeked, s.tls), nil
	case s.plain || loopback(conn.RemoteAddr()):
		return peeked, nil
	}
	_, err = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+
		"This server speaks TLS to other machines: use https://\n")
	return nil, errors.Join(errPlaintext, err)
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback() // what is not TCP does not leave the machine
}

// Accept gives the HTTP server the next connection.
func (s *sniffer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// peekedConn gives back the bytes that were looked at.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *peekedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// serverLog takes net/http's own chatter, which is about clients that go away.
func serverLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
