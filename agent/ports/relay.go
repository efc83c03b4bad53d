package ports

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// bulkWait limits how long the kernel may wait for more data while it copies.
const bulkWait = time.Second

// bulkBytes is what the kernel copies at most before the bytes are counted.
const bulkBytes = 16 << 20

// buffers are used while data is copied. An idle connection over TCP has none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }} //nolint:gochecknoglobals // memory that connections share

// relay copies both directions until both have ended, one has failed, nothing was copied for Limits.Idle, or ctx ends.
func (p *Ports) relay(ctx context.Context, project, from string, client, service net.Conn) {
	m := p.metrics.connection(project, from)
	m.begin()
	defer m.end()
	var active atomic.Int64 // time of the last byte
	active.Store(time.Now().UnixNano())
	abort := sync.OnceFunc(func() {
		reset(client)
		reset(service)
	})
	stop := context.AfterFunc(ctx, abort)
	defer stop()
	idle := watchIdle(p.cfg.Limits.Idle, &active, abort)
	defer idle()
	var both sync.WaitGroup
	direction := func(to, from net.Conn, count func(int)) {
		counted := func(n int) {
			active.Store(time.Now().UnixNano())
			count(n)
		}
		if err := pass(to, from, counted); err != nil {
			abort()
		}
	}
	both.Go(func() { direction(service, client, m.received) })
	direction(client, service, m.sent)
	both.Wait()
}

// watchIdle calls abort when nothing was active for the whole limit. It stops when the returned function is called.
func watchIdle(limit time.Duration, active *atomic.Int64, abort func()) (stop func()) {
	var mu sync.Mutex
	stopped := false
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(limit, func() {
		mu.Lock()
		defer mu.Unlock()
		left := limit - time.Since(time.Unix(0, active.Load()))
		switch {
		case stopped:
		case left <= 0:
			abort()
		default:
			timer.Reset(left)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// pass copies one direction to its end, and passes the end on.
func pass(to, from net.Conn, count func(int)) error {
	err := copyAll(to, from, count)
	if err != nil {
		return err
	}
	half, ok := to.(interface{ CloseWrite() error })
	if !ok {
		return to.Close()
	}
	if err := half.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) { // the peer has closed already
		return err
	}
	return nil
}

func copyAll(to, from net.Conn, count func(int)) error {
	if tcp, ok := from.(*net.TCPConn); ok {
		return copyTCP(to, tcp, count)
	}
	buf := make([]byte, 16<<10) // the size of a TLS record
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			count(n)
		}
		if err != nil {
			return unlessEOF(err)
		}
	}
}

// copyTCP copies from a TCP connection. It takes a buffer only when there is data. If much arrives and the other side is TCP
// too, the kernel copies.
func copyTCP(to net.Conn, from *net.TCPConn, count func(int)) error {
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	_, kernel := to.(*net.TCPConn)
	for {
		full, n, err := copyOnce(raw, to)
		if n > 0 {
			count(n)
		}
		if err != nil {
			return unlessEOF(err)
		}
		for full && kernel {
			if full, err = bulk(to, from, count); err != nil {
				return unlessEOF(err)
			}
		}
	}
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// copyOnce waits for data and copies one buffer. full reports that there may be more.
func copyOnce(raw syscall.RawConn, to net.Conn) (full bool, n int, err error) {
	var buf *[]byte
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[]byte)
		for {
			if n, failed = syscall.Read(int(fd), *buf); !errors.Is(failed, syscall.EINTR) {
				break
			}
		}
		if errors.Is(failed, syscall.EAGAIN) {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer buffers.Put(buf)
	}
	switch {
	case err != nil:
		return false, 0, err
	case failed != nil:
		return false, 0, os.NewSyscallError("read", failed)
	case n == 0:
		return false, 0, io.EOF
	}
	_, err = to.Write((*buf)[:n])
	return n == len(*buf), n, err
}

// bulk lets the kernel copy for a while. more reports that data kept arriving.
func bulk(to net.Conn, from *net.TCPConn, count func(int)) (more bool, err error) {
	if err := from.SetReadDeadline(time.Now().Add(bulkWait)); err != nil {
		return false, err
	}
	n, err := io.CopyN(to, from, bulkBytes)
	if n > 0 {
		count(int(n))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // nothing is lost: what the kernel has read it has also written
		more, err = n >= bulkBytes/16, nil
	} else {
		more = err == nil
	}
	return more, errors.Join(err, from.SetReadDeadline(time.Time{}))
}

// reset closes a connection so that the peer gets an error instead of an end.
func reset(conn net.Conn) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn() // without the message of TLS that says that the data is complete
	}
	if lingers, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = lingers.SetLinger(0) // then it is closed like any other
	}
	_ = conn.Close() // it is abandoned
}
