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
// looks when the machine has last acknowledged anything, and whether it owes an answer. While a service does not read, the kernel
// asks its machine less and less often, at last every two minutes. Between these questions, silence means nothing. If the machine
// dies then, reads and writes fail after the next question.
func Connect(ctx context.Context, address string) (net.Conn, error) {
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: lookEvery, Interval: lookEvery, Count: int(goneAfter / lookEvery)}}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return watch(raw.(*net.TCPConn), lookEvery, lookAt), nil
}

// sign is what the kernel knows about the other machine.
type sign struct {
	silent time.Duration // since it has last sent or acknowledged anything
	owes   bool          // it has not yet answered to data or to a question of the kernel
}

// watched is a connection that ends when the other machine is gone.
type watched struct {
	*net.TCPConn
	every time.Duration
	look  func(*net.TCPConn) (sign, error)
	gone  atomic.Bool

	mu     sync.Mutex
	next   *time.Timer
	owed   bool // at the last look
	closed bool
}

func watch(conn *net.TCPConn, every time.Duration, look func(*net.TCPConn) (sign, error)) *watched {
	w := &watched{TCPConn: conn, every: every, look: look}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = time.AfterFunc(every, w.check)
	return w
}

// check closes the connection if the other machine has been silent for too long.
func (w *watched) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	s, err := w.look(w.TCPConn)
	owed := w.owed && s.owes // at two looks: at one, the kernel may have asked just now
	w.owed = s.owes
	switch {
	case err != nil: // it is closed, or the system cannot tell
	case s.silent < goneAfter || !owed:
		w.next.Reset(w.every)
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
	w.next.Stop()
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

// why returns goneError instead of an error that follows from check closing the connection.
func (w *watched) why(err error) error {
	if err != nil && w.gone.Load() {
		return goneError{}
	}
	return err
}

// goneError is a timeout, like that of the kernel.
type goneError struct{}

func (goneError) Error() string { return "its machine has not answered for " + goneAfter.String() }
func (goneError) Timeout() bool { return true }

// Temporary completes net.Error.
func (goneError) Temporary() bool { return false }
