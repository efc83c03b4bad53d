package peer

import (
	"errors"
	"net"
	"testing"
	"time"
)

// TestGone: a connection to a machine that is silent for too long fails with a timeout, and others live.
func TestGone(t *testing.T) {
	dialled, accepted := pair(t)
	looks := make(chan time.Duration)
	w := watch(dialled.(*net.TCPConn), time.Millisecond, func(*net.TCPConn) (time.Duration, error) { return <-looks, nil })
	defer w.Close()
	for range 3 {
		looks <- goneAfter - time.Millisecond
	}
	if _, err := accepted.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var got [1]byte
	if _, err := w.Read(got[:]); err != nil || got[0] != 'x' {
		t.Fatalf("the machine answers in time: %q, %v", got, err)
	}
	looks <- goneAfter
	_, err := w.Read(got[:])
	if late, ok := errors.AsType[net.Error](err); !ok || !late.Timeout() {
		t.Errorf("read from a machine that is gone: %v", err)
	}
	_, err = w.Write(got[:])
	if late, ok := errors.AsType[net.Error](err); !ok || !late.Timeout() {
		t.Errorf("write to a machine that is gone: %v", err)
	}
}

// TestCloseEndsTheWatch: a closed connection is not looked at, and its end is no timeout.
func TestCloseEndsTheWatch(t *testing.T) {
	dialled, _ := pair(t)
	looks := 0
	w := watch(dialled.(*net.TCPConn), time.Hour, func(*net.TCPConn) (time.Duration, error) { looks++; return goneAfter, nil })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.check() // as a timer that has fired meanwhile
	if _, err := w.Read(make([]byte, 1)); looks != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after %d looks: %v", looks, err)
	}
}

// TestSilence: the kernel says when the other side was last heard.
func TestSilence(t *testing.T) {
	dialled, accepted := pair(t)
	conn := dialled.(*net.TCPConn)
	deadline := time.Now().Add(30 * time.Second)
	for before := time.Duration(0); ; {
		now, err := silence(conn)
		if err != nil {
			t.Fatal(err)
		}
		if now < before { // it has grown, and the byte ended it
			return
		}
		if before = now; before > 10*time.Millisecond {
			if _, err := accepted.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the silence is %s", now)
		}
	}
}
