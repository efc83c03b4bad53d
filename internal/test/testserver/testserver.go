// Package testserver is an HTTP server for tests that can stop and restart on the same address, delay answers, and count
// requests.
//
// It has no part in a push: testgit and testregistry use it for a real git server and a real registry. Invariants: the
// address does not change from Start to Close, Down cuts every connection immediately like a crash, and counters survive
// outages.
package testserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxLog limits the requests in Log. Older ones are only counted.
const maxLog = 10_000

// Config configures a server. Listen defaults to a free port of 127.0.0.1. Without TLS it is plain HTTP.
type Config struct {
	Handler http.Handler
	Listen  string
	TLS     *tls.Config
}

// Validate returns an error if c is not usable.
func (c Config) Validate() error {
	if c.Handler == nil {
		return errors.New("a test server needs a handler")
	}
	return nil
}

// Request is one request that the server answered or aborted.
type Request struct {
	Method, Path, Query string
	Status              int
	BytesIn, BytesOut   int64
}

// Server serves until Close. It is safe for concurrent use.
type Server struct {
	config  Config
	address string

	mu     sync.Mutex
	server *http.Server  // nil while down
	served chan struct{} // closed once server's accept loop has returned
	delay  time.Duration
	total  int64
	in     int64
	out    int64
	log    []Request
}

// Start starts a server.
func Start(ctx context.Context, config Config) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Listen == "" {
		config.Listen = "127.0.0.1:0"
	}
	s := &Server{config: config, address: config.Listen}
	if err := s.Up(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr returns host:port.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// URL returns the server's root URL.
func (s *Server) URL() string {
	if s.config.TLS != nil {
		return "https://" + s.Addr()
	}
	return "http://" + s.Addr()
}

// Up listens again on the same address. It does nothing if the server is up.
func (s *Server) Up(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("start test server: %w", err)
	}
	s.address = listener.Addr().String()
	if s.config.TLS != nil {
		listener = tls.NewListener(listener, s.config.TLS)
	}
	server := &http.Server{Handler: http.HandlerFunc(s.answer), ErrorLog: silent(), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		// Serve always returns that the server was closed, because the server owns the listener.
		_ = server.Serve(listener)
	}()
	s.server, s.served = server, served
	return nil
}

// Down refuses new connections and closes the open ones.
func (s *Server) Down() error {
	s.mu.Lock()
	server, served := s.server, s.served
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Close()
	<-served
	return err
}

// Close stops the server.
func (s *Server) Close() error { return s.Down() }

// Delay delays the answers of all later requests.
func (s *Server) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// Totals returns the requests and the bytes of their bodies, in both directions, since the start or the last Reset.
func (s *Server) Totals() (requests, bytesIn, bytesOut int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total, s.in, s.out
}

// Log returns the requests since the start or the last Reset, in the order of their ends, at most 10,000.
func (s *Server) Log() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.log...)
}

// Reset clears the counters.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total, s.in, s.out, s.log = 0, 0, 0, nil
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
	}
	counted := &countingWriter{ResponseWriter: w}
	body := &countingBody{ReadCloser: r.Body}
	r.Body = body
	defer func() { // also if the handler aborts the connection with a panic
		s.record(Request{
			Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
			Status: counted.status, BytesIn: body.n.Load(), BytesOut: counted.n,
		})
	}()
	s.config.Handler.ServeHTTP(counted, r)
}

func (s *Server) record(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	s.in += r.BytesIn
	s.out += r.BytesOut
	if len(s.log) < maxLog {
		s.log = append(s.log, r)
	}
}
