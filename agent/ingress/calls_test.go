package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestCallsThatNoServiceGets: the answers of an agent to calls are statuses of gRPC with a text.
func TestCallsThatNoServiceGets(t *testing.T) {
	nodes := cluster(t)
	old, err := tls.Listen("tcp", "127.0.0.1:0", func() *tls.Config {
		c := nodes("n2").Accept()
		c.NextProtos = []string{"http/1.1"}
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	go func() {
		for c, err := old.Accept(); err == nil; c, err = old.Accept() {
			_ = c.(*tls.Conn).Handshake() // it fails
			_ = c.Close()
		}
	}()
	i, addr := serving(t, Config{Node: "n1", Peers: nodes("n1"), Endpoint: func(_, service string) (string, func(), bool) {
		return "127.0.0.1", func() {}, service == "w"
	}})
	route := func(host, service string) *carav1.HostRoutes {
		return &carav1.HostRoutes{Host: host, Routes: []*carav1.Route{{
			Host: host, Project: "p", Service: service, Port: 1, Node: "n1", Protocol: api.TargetH2C, Features: []string{api.FeatureH2C},
		}}}
	}
	here, down, closed, password, far := route("closed", "w"), route("down", "x"), route("forbidden", "w"), route("password", "w"), route("far", "x")
	closed.Routes[0].Allow = []string{"192.0.2.1/32"}
	password.Routes[0].PasswordList = "list"
	far.Routes[0].Node, far.Routes[0].IngressAddress = "n2", old.Addr().String()
	i.Apply(&carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{here, down, closed, password, far}})
	for host, want := range map[string]struct {
		code codes.Code
		text string
	}{
		"nobody":    {codes.Unimplemented, `No project claims the host "nobody".`},
		"forbidden": {codes.PermissionDenied, `Clients with the address "127.0.0.1" cannot use this host and path.`},
		"password":  {codes.Unavailable, "The passwords for this host and path are not known."},
		"down":      {codes.Unavailable, `Service "x" of project "p" is not ready.`},
		"closed":    {codes.Unavailable, `Service "w" of project "p" did not answer on port 1.`},
		"far":       {codes.Unavailable, `Project "p" runs on node "n2", whose agent is too old for the protocol H2C. Update it.`},
	} {
		c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(host))
		if err != nil {
			t.Fatal(err)
		}
		_, err = testpb.NewTestServiceClient(c).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		if s := status.Convert(err); s.Code() != want.code || !strings.Contains(s.Message(), want.text) {
			t.Errorf("%s: %v", host, err)
		}
		_ = c.Close()
	}
	answer, _ := io.ReadAll(raw(t, addr, "GET / HTTP/1.1\r\nHost: closed\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"))
	if !strings.HasPrefix(string(answer), "HTTP/1.1 501 ") || !strings.Contains(string(answer), "has no WebSockets") {
		t.Errorf("a WebSocket: %s", answer)
	}
}

// moody is a gRPC service whose first connection fails in some way after it has read a whole request. fail reports whether the
// connection ends then.
func moody(t *testing.T, fail func(*http2.Framer, uint32) bool) (port int32, calls *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls = new(atomic.Int32)
	srv := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		calls.Add(1)
		return next(ctx, r)
	}), grpc.MaxRecvMsgSize(64<<20))
	testpb.RegisterTestServiceServer(srv, &grpcService{})
	t.Cleanup(srv.Stop)
	go func() { _ = srv.Serve(&firstFails{Listener: l, fail: fail}) }()
	return int32(l.Addr().(*net.TCPAddr).Port), calls
}

type firstFails struct {
	net.Listener
	fail func(*http2.Framer, uint32) bool
	once sync.Once
}

func (l *firstFails) Accept() (net.Conn, error) {
	var err error
	l.once.Do(func() {
		var c net.Conn
		if c, err = l.Listener.Accept(); err == nil {
			failAfterRequest(c, l.fail)
		}
	})
	if err != nil {
		return nil, err
	}
	return l.Listener.Accept()
}

// failAfterRequest reads requests to their end, or to the data "fail", and lets them fail, and closes the connection at its end.
func failAfterRequest(c net.Conn, fail func(*http2.Framer, uint32) bool) {
	defer c.Close()
	f := http2.NewFramer(c, c)
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 24})
	_ = f.WriteWindowUpdate(0, 1<<24)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.DataFrame:
			if frame.StreamEnded() || string(frame.Data()) == "fail" {
				if fail(f, frame.StreamID) {
					return
				}
			}
		}
	}
}

// TestACallIsSentAgain: if the service says that it has not seen a call, the call is sent again. Otherwise it is not.
func TestACallIsSentAgain(t *testing.T) {
	reset := func(code http2.ErrCode) func(*http2.Framer, uint32) bool {
		return func(f *http2.Framer, id uint32) bool {
			_ = f.WriteGoAway(id, http2.ErrCodeNo, nil) // before the reset, so the next call uses another connection
			return f.WriteRSTStream(id, code) != nil
		}
	}
	for name, tt := range map[string]struct {
		fail  func(*http2.Framer, uint32) bool
		size  int
		code  codes.Code
		calls int32
	}{
		"refused":                {reset(http2.ErrCodeRefusedStream), 1000, codes.OK, 1},
		"refused, but too large": {reset(http2.ErrCodeRefusedStream), 1 << 20, codes.Unavailable, 0},
		"going away":             {func(f *http2.Framer, _ uint32) bool { return f.WriteGoAway(0, http2.ErrCodeNo, nil) != nil }, 1000, codes.OK, 1},
		"perhaps seen":           {func(*http2.Framer, uint32) bool { return true }, 1000, codes.Unavailable, 0},
		"seen":                   {reset(http2.ErrCodeInternal), 1000, codes.Internal, 0},
		"cancelled":              {reset(http2.ErrCodeCancel), 1000, codes.Canceled, 0},
		"too many":               {reset(http2.ErrCodeEnhanceYourCalm), 1000, codes.ResourceExhausted, 0},
	} {
		t.Run(name, func(t *testing.T) {
			port, calls := moody(t, tt.fail)
			c := testpb.NewTestServiceClient(grpcFront(t, port, false, Limits{}).dial(t, false))
			_, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload(tt.size)})
			if status.Code(err) != tt.code || calls.Load() != tt.calls {
				t.Errorf("%v after %d calls", err, calls.Load())
			}
			if err != nil && !strings.Contains(err.Error(), `Service "w" of project "p"`) {
				t.Errorf("the error does not name the service: %v", err)
			}
			if _, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload(tt.size)}); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}

// TestTheServiceEndsACall: the client gets the status, also while it sends nothing. If the deadline has passed, the status says so.
func TestTheServiceEndsACall(t *testing.T) {
	port, _ := moody(t, func(f *http2.Framer, id uint32) bool { return f.WriteRSTStream(id, http2.ErrCodeCancel) != nil })
	f := grpcFront(t, port, false, Limits{})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	for timeout, want := range map[string]string{"": "1", "1n": "4", "1H": "1"} {
		body, in := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.internal+"/x.Y/Z", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "a.b"
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Grpc-Timeout", timeout)
		go func() { _, _ = io.WriteString(in, "fail") }()
		answer, err := (&http.Client{Transport: tr, Timeout: 5 * time.Minute}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.Header.Get("Grpc-Status"); got != want || answer.StatusCode != http.StatusOK {
			t.Errorf("with the timeout %q: %s, status %s", timeout, answer.Status, got)
		}
		_ = errors.Join(in.Close(), answer.Body.Close())
	}
}

// endless sends until it cannot.
type endless struct {
	testpb.UnimplementedTestServiceServer
	sent atomic.Int64
}

func (s *endless) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for range r.GetResponseParameters()[0].GetSize() {
		if err := out.Send(&testpb.StreamingOutputCallResponse{Payload: payload(10_000)}); err != nil {
			return err
		}
		s.sent.Add(10_000)
	}
	return nil
}

func (s *endless) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: r.GetPayload()}, nil
}

// TestSlowReaders: streams whose client does not read make the service wait, at this node and at another. They delay no other
// call on the same connections, and nothing is lost.
func TestSlowReaders(t *testing.T) {
	for _, hop := range []bool{false, true} {
		t.Run(fmt.Sprintf("hop %v", hop), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s, srv := &endless{}, grpc.NewServer()
			testpb.RegisterTestServiceServer(srv, s)
			t.Cleanup(srv.Stop)
			go func() { _ = srv.Serve(l) }()
			f := grpcFront(t, int32(l.Addr().(*net.TCPAddr).Port), hop, Limits{})
			window := grpc.WithStaticStreamWindowSize(1 << 16)
			slow, quick := testpb.NewTestServiceClient(f.dial(t, false, window, grpc.WithStaticConnWindowSize(1<<24))), testpb.NewTestServiceClient(f.dial(t, false))
			const streams, messages = 50, 1000
			var all []grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse]
			for range streams {
				out, err := slow.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: messages}}})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := out.Recv(); err != nil {
					t.Fatal(err)
				}
				all = append(all, out)
			}
			for range 500 {
				if _, err := quick.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload(10_000)}); err != nil {
					t.Fatal(err)
				}
			}
			if sent := s.sent.Load() / streams; sent > 1<<20 {
				t.Errorf("the service has sent %d bytes for each stream that is not read", sent)
			}
			for _, out := range all {
				for n := 1; ; n++ {
					if _, err := out.Recv(); errors.Is(err, io.EOF) {
						if n != messages {
							t.Errorf("%d messages", n)
						}
						break
					} else if err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// TestProtocolsOfAHost: one host has a gRPC service, and a service with WebSockets.
func TestProtocolsOfAHost(t *testing.T) {
	_, port := startGRPC(t)
	f := grpcFront(t, port, false, Limits{})
	_, plain := service(t, func(w http.ResponseWriter, _ *http.Request) {
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.CopyN(c, buffered, 5)
	})
	calls, sockets := publicRoute("a.b", "/grpc.testing.TestService", port), publicRoute("a.b", "", plain)
	calls.Protocol, calls.Features = api.TargetH2C, []string{api.FeatureH2C}
	f.Apply(&carav1.Routes{FeatureHosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{calls, sockets}}}})
	for _, public := range []bool{false, true} {
		if _, err := testpb.NewTestServiceClient(f.dial(t, public)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Error(err)
		}
	}
	conn, err := tls.Dial("tcp", f.https, &tls.Config{RootCAs: f.ca.Pool(), ServerName: "a.b", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /socket HTTP/1.1\r\nHost: a.b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the WebSocket: %v, %v", answer, err)
	}
	fmt.Fprint(conn, "hello")
	if echo, err := io.ReadAll(in); string(echo) != "hello" {
		t.Errorf("the WebSocket: %q, %v", echo, err)
	}
}

func TestCallTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1S": time.Second, "99999999m": 99999999 * time.Millisecond, "5u": 5 * time.Microsecond, "7n": 7, "2M": 2 * time.Minute, "99999999H": 1<<63 - 1,
		"": -1, "S": -1, "1": -1, "100000000S": -1, "-1S": -1, "1x": -1, "1.5S": -1,
	} {
		got, ok := callTimeout(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	if got := escaped("50 % ü\n\x7f"); got != "50 %25 %C3%BC%0A%7F" {
		t.Error(got)
	}
}
