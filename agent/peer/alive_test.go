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
	looks := make(chan sign)
	w := watch(dialled.(*net.TCPConn), time.Millisecond, func(*net.TCPConn) (sign, error) { return <-looks, nil })
	defer w.Close()
	look := func(s sign) {
		t.Helper()
		select {
		case looks <- s:
		case <-time.After(30 * time.Second):
			t.Fatalf("it does not look any more, before %+v", s)
		}
	}
	for range 3 {
		look(sign{silent: goneAfter - time.Millisecond, owes: true})
		look(sign{silent: 3 * goneAfter})             // a service there does not read, and the kernel has not asked for a while
		look(sign{silent: 3 * goneAfter, owes: true}) // it has asked just now
	}
	if _, err := accepted.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var got [1]byte
	if _, err := w.Read(got[:]); err != nil || got[0] != 'x' {
		t.Fatalf("the machine answers in time: %q, %v", got, err)
	}
	look(sign{silent: goneAfter, owes: true})
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
	w := watch(dialled.(*net.TCPConn), time.Hour, func(*net.TCPConn) (sign, error) { looks++; return sign{goneAfter, true}, nil })
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
		s, err := lookAt(conn)
		if err != nil {
			t.Fatal(err)
		}
		now := s.silent
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

// TestFullOwesNothing: a machine that has acknowledged what it was sent, and has no room for more, owes no answer. The kernel asks it
// again and again, so it owes one for moments.
func TestFullOwesNothing(t *testing.T) {
	dialled, _ := pair(t)
	if err := dialled.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for data := make([]byte, 64<<10); ; {
		if _, err := dialled.Write(data); err != nil {
			break // it is full
		}
	}
	deadline := time.Now().Add(time.Minute)
	for {
		s, err := lookAt(dialled.(*net.TCPConn))
		switch {
		case err != nil:
			t.Fatal(err)
		case !s.owes:
			return
		case time.Now().After(deadline):
			t.Fatal("it owes an answer all the time")
		}
	}
}
