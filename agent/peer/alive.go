package peer

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// goneAfter is how long the machine of another agent may be silent. The server takes a node for lost after the same time.
	goneAfter = 20 * time.Second
	// lookEvery is how often this is checked, and how often the kernel asks a quiet machine for a sign of life.
	lookEvery = 5 * time.Second
)

// Connect opens a TCP connection to another agent. If the machine there dies or cannot be reached any more, reads and writes
// fail after about goneAfter, with a timeout.
//
// The kernel alone would need a quarter of an hour, because keepalives rest while sent data is not acknowledged. Its option
// TCP_USER_TIMEOUT would also end the connections of a service that is alive and does not read for a while. So the connection
// looks when the machine has last acknowledged anything.
func Connect(ctx context.Context, address string) (net.Conn, error) {
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: lookEvery, Interval: lookEvery, Count: int(goneAfter / lookEvery)}}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return watch(raw.(*net.TCPConn), lookEvery, silence), nil
}

// watched is a connection that ends when the other machine is gone.
type watched struct {
	*net.TCPConn
	every   time.Duration
	silence func(*net.TCPConn) (time.Duration, error)
	gone    atomic.Bool

	mu     sync.Mutex
	look   *time.Timer
	closed bool
}

func watch(conn *net.TCPConn, every time.Duration, silence func(*net.TCPConn) (time.Duration, error)) *watched {
	w := &watched{TCPConn: conn, every: every, silence: silence}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look = time.AfterFunc(every, w.check)
	return w
}

// check closes the connection if the other machine has been silent for too long.
func (w *watched) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	silent, err := w.silence(w.TCPConn)
	switch {
	case err != nil: // it is closed, or the system cannot tell
	case silent < goneAfter:
		w.look.Reset(w.every)
	default:
		w.gone.Store(true)
		_ = w.SetLinger(0) // nobody takes what is left
		_ = w.TCPConn.Close()
	}
}

// Close ends the connection.
func (w *watched) Close() error {
	w.mu.Lock()
	w.closed = true
	w.look.Stop()
	w.mu.Unlock()
	return w.TCPConn.Close()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(p)
	return n, w.why(err)
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.TCPConn.Write(p)
	return n, w.why(err)
}

// why returns the reason of an error: a connection that check has closed.
func (w *watched) why(err error) error {
	if err != nil && w.gone.Load() {
		return goneError{}
	}
	return err
}

// goneError is a timeout, as that of the kernel.
type goneError struct{}

func (goneError) Error() string { return "its machine has not answered for " + goneAfter.String() }
func (goneError) Timeout() bool { return true }

// Temporary completes net.Error.
func (goneError) Temporary() bool { return false }
