package agent_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// listens is a service's port: the fake engine's containers have the address 127.0.0.1.
func listens(t *testing.T, serve func(*net.TCPConn)) (port int32) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			serve(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return int32(l.Addr().(*net.TCPAddr).Port)
}

func portOf(port int32) *carav1.OpenStream {
	return &carav1.OpenStream{Kind: &carav1.OpenStream_PortForward{PortForward: &carav1.PortForwardStart{Name: "p", Service: "a", Port: port}}}
}

func portData(data []byte) *carav1.AttachResponse {
	return &carav1.AttachResponse{PortForward: &carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Data{Data: data}}}
}

func portClosed() *carav1.AttachResponse {
	return &carav1.AttachResponse{PortForward: &carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Closed{Closed: true}}}
}

func whole(all []*carav1.AttachRequest) (data []byte, connected, closed bool, failure string) {
	for _, m := range all {
		data = append(data, m.GetPortForward().GetData()...)
		connected = connected || m.GetPortForward().GetConnected()
		closed = closed || m.GetPortForward().GetClosed()
		failure += m.GetError()
	}
	return data, connected, closed, failure
}

func TestPortForward(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	over := func(id string) func([]*carav1.AttachRequest) bool {
		return func([]*carav1.AttachRequest) bool { return f.closed[id] }
	}

	// The service answers after it has read everything: the client's direction has ended, its own continues.
	reads := listens(t, func(conn *net.TCPConn) {
		all, _ := io.ReadAll(conn)
		_, _ = conn.Write(bytes.ToUpper(all))
	})
	f.open("half", portOf(reads))
	f.says(t, "half", portData([]byte("half ")), portData([]byte("close")), portClosed())
	if data, connected, closed, failure := whole(f.heard(t, "half", over("half"))); string(data) != "HALF CLOSE" || !connected || !closed || failure != "" {
		t.Errorf("%q, connected %v, closed %v, %s", data, connected, closed, failure)
	}

	// The service ends its direction first, and continues to read.
	heard := make(chan string, 1)
	ends := listens(t, func(conn *net.TCPConn) {
		_, _ = conn.Write([]byte("that is all"))
		_ = conn.CloseWrite()
		all, _ := io.ReadAll(conn)
		heard <- string(all)
	})
	f.open("first", portOf(ends))
	f.heard(t, "first", func(all []*carav1.AttachRequest) bool { _, _, closed, _ := whole(all); return closed })
	f.says(t, "first", portData([]byte("still here")), portClosed())
	if data, _, _, failure := whole(f.heard(t, "first", over("first"))); string(data) != "that is all" || <-heard != "still here" || failure != "" {
		t.Errorf("%q, %s", data, failure)
	}

	// A broken connection is an error, and so is a refused one.
	breaks := listens(t, func(conn *net.TCPConn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.SetLinger(0)
	})
	f.open("broken", portOf(breaks))
	f.says(t, "broken", portData([]byte("x")))
	if _, _, closed, failure := whole(f.heard(t, "broken", over("broken"))); closed || !strings.Contains(failure, "broke the connection off: ") {
		t.Errorf("a broken connection: closed %v, %q", closed, failure)
	}
	f.open("refused", portOf(1))
	all := f.heard(t, "refused", over("refused"))
	if _, connected, _, failure := whole(all); connected || failure != "connect to a:1: connect: connection refused" || codes.Code(all[0].GetCode()) != codes.Unavailable {
		t.Errorf("a refused connection: connected %v, %q", connected, failure)
	}
}

// TestPortForwardLeft: the service notices that its client has left, even if it reads nothing.
func TestPortForwardLeft(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	accepted, gone, told := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	port := listens(t, func(conn *net.TCPConn) {
		close(accepted)
		<-gone
		_, err := io.Copy(io.Discard, conn)
		told <- err
	})
	f.open("left", portOf(port))
	f.says(t, "left", portData(make([]byte, 32<<10)))
	<-accepted
	for range 400 { // more than a connection's buffers hold
		f.says(t, "left", portData(make([]byte, 32<<10)))
	}
	f.mu.Lock()
	close(f.leave["left"])
	f.mu.Unlock()
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.closed["left"]
	})
	close(gone)
	if err := <-told; err == nil {
		t.Error("the service takes it for the end of what its caller had to say")
	}
}
