package ingress

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

const plainRequest = "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n"

// answeredOn sends a request on a new connection and returns the connection, which is then idle.
func answeredOn(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := raw(t, addr, plainRequest)
	r := bufio.NewReader(c)
	if err := statusOf(r); err != nil {
		t.Fatal(err)
	}
	return c, r
}

func statusOf(r *bufio.Reader) error {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// ends checks that the other side has closed a connection.
func ends(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("%s: the connection goes on", what)
	}
}

// TestWhatWaitsMakesRoom: idle and silent connections, and those with an incomplete header, are closed for one with a
// request, longest wait first.
func TestWhatWaitsMakesRoom(t *testing.T) {
	i, addr := one(t, Config{Limits: Limits{Connections: 3, ClientConnections: 100}}, func(http.ResponseWriter, *http.Request) {})
	idle, _ := answeredOn(t, addr)
	waits(t, i, 1)
	silent := raw(t, addr, "")
	waits(t, i, 2)
	half := raw(t, addr, "GET / HTTP/1.1\r\nHost: a.b\r\nX-")
	waits(t, i, 3)
	for _, victim := range []struct {
		name string
		conn net.Conn
	}{{"idle", idle}, {"silent", silent}, {"half a header", half}} {
		answeredOn(t, addr)
		ends(t, victim.name, victim.conn)
	}
	if n := i.internal.clients.count(); n != 3 {
		t.Errorf("%d connections are counted, want 3", n)
	}
}

// waits until so many connections wait.
func waits(t *testing.T, i *Ingress, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(time.Millisecond) {
		i.internal.clients.mu.Lock()
		have := i.internal.clients.waiting.Len()
		i.internal.clients.mu.Unlock()
		if have == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections wait, want %d", have, n)
		}
	}
}

// TestWhatIsInUseIsNotClosed: a new connection waits until another one ends or becomes idle.
func TestWhatIsInUseIsNotClosed(t *testing.T) {
	gate, begun := make(chan struct{}), make(chan struct{}, 2)
	_, addr := one(t, Config{Limits: Limits{Connections: 2, ClientConnections: 100}}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			begun <- struct{}{}
			<-gate
		}
	})
	var held [2]*bufio.Reader
	for n := range held {
		held[n] = bufio.NewReader(raw(t, addr, "GET /hold HTTP/1.1\r\nHost: a.b\r\n\r\n"))
		<-begun
	}
	third := raw(t, addr, plainRequest)
	if err := third.SetReadDeadline(time.Now().Add(moving)); err != nil {
		t.Fatal(err)
	}
	if n, err := third.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatal("a third connection was served while two were in use")
	}
	if err := third.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	close(gate)
	for n := range held {
		if err := statusOf(held[n]); err != nil {
			t.Errorf("a request in flight: %v", err)
		}
	}
	if err := statusOf(bufio.NewReader(third)); err != nil {
		t.Errorf("the third, once there was room: %v", err)
	}
}

// TestAClientHasAShare: at the limit of one client, its own idle connections are closed first. If none is idle, its new
// connection is closed. Other clients keep theirs.
func TestAClientHasAShare(t *testing.T) {
	gate, begun := make(chan struct{}), make(chan struct{}, 2)
	i, addr := one(t, Config{Limits: Limits{Connections: 100, ClientConnections: 2}}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			begun <- struct{}{}
			<-gate
		}
	})
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	other, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	fmt.Fprint(other, plainRequest)
	others := bufio.NewReader(other)
	if err := statusOf(others); err != nil {
		t.Fatal(err)
	}

	first, _ := answeredOn(t, addr)
	waits(t, i, 2)
	for range 2 {
		raw(t, addr, "GET /hold HTTP/1.1\r\nHost: a.b\r\n\r\n")
		<-begun
	}
	ends(t, "the idle one", first)
	ends(t, "one more than the share", raw(t, addr, plainRequest))
	fmt.Fprint(other, plainRequest)
	if err := statusOf(others); err != nil {
		t.Errorf("another client: %v", err)
	}
	close(gate)
}
