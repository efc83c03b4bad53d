package program

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func dialed(t *testing.T, at net.Addr) (net.Conn, error) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), at.Network(), at.String())
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// TestAddress: nobody is refused while a standby becomes active, and who connected before the change is served after it. A server that
// stops being active refuses.
func TestAddress(t *testing.T) {
	a := &address{listen: "127.0.0.1:0"}
	first, err := a.standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := first.Addr()
	early, err := dialed(t, at)
	if err != nil {
		t.Fatal(err)
	}
	held, err := first.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := first.Accept()
		ended <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed role: %v", err)
	}
	a.keep(held)
	late, err := dialed(t, at)
	if err != nil {
		t.Fatalf("during the change: %v", err)
	}

	second, err := a.active(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range []net.Conn{early, late} {
		conn, err := second.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if conn.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("accepted %s, want %s", conn.RemoteAddr(), client.LocalAddr())
		}
		_ = conn.Close()
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := dialed(t, at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a server that is not active any more: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}
