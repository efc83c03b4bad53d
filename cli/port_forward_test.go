package cli

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
)

// echoPort is a server whose services send back what they get.
type echoPort struct {
	carav1.UnimplementedProjectServiceServer
	calls atomic.Int32
}

func (e *echoPort) PortForward(stream carav1.ProjectService_PortForwardServer) error {
	e.calls.Add(1)
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		if req.GetClosed() {
			return stream.Send(&carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Closed{Closed: true}})
		}
		if err := stream.Send(&carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Data{Data: req.GetData()}}); err != nil {
			return err
		}
	}
}

// breaking accepts connections and breaks the first ones without an answer, like a busy server. The client has sent its call by
// then: otherwise gRPC sometimes repeats the call by itself.
type breaking struct {
	net.Listener
	left int
}

func (b *breaking) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil || b.left == 0 {
			return conn, err
		}
		b.left--
		framer := http2.NewFramer(conn, conn)
		_ = framer.WriteSettings()
		_, _ = io.ReadFull(conn, make([]byte, len(http2.ClientPreface)))
		for called := false; err == nil && !called; {
			var frame http2.Frame
			if frame, err = framer.ReadFrame(); err == nil {
				_, called = frame.(*http2.HeadersFrame)
			}
		}
		_ = conn.Close()
	}
}

// TestForwardedConnectionIsTriedTwice: the program does not notice if the connection breaks before the server has accepted
// the call. A second break is an error.
func TestForwardedConnectionIsTriedTwice(t *testing.T) {
	for breaks, want := range map[int]string{0: "hello", 1: "hello", 2: ""} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		echo, server := &echoPort{}, grpc.NewServer()
		carav1.RegisterProjectServiceServer(server, echo)
		go func() { _ = server.Serve(&breaking{Listener: l, left: breaks}) }()
		defer server.Stop()

		program, conn := tcpPair(t)
		f := &forwarder{server: access.Context{Server: "http://" + l.Addr().String()}, to: target{project: "p", service: "s"}}
		done := make(chan error, 1)
		go func() { done <- f.forward(t.Context(), conn, 80) }()
		_, _ = io.WriteString(program, "hello")
		_ = program.CloseWrite()
		got, _ := io.ReadAll(program)
		if err := <-done; (err == nil) != (want != "") || string(got) != want {
			t.Errorf("after %d broken connections the program reads %q, and the call ends with %v; want %q", breaks, got, err, want)
		}
		if calls := echo.calls.Load(); want != "" && calls != 1 {
			t.Errorf("after %d broken connections the server was called %d times, want once", breaks, calls)
		}
	}
}

// tcpPair is both ends of a connection.
func tcpPair(t *testing.T) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)) //nolint:forcetypeassert // a TCP listener has a TCP address
	if err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{dialled, accepted} {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
	}
	return dialled, accepted
}
