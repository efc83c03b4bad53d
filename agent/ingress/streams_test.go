package ingress

import (
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpctls "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/caravanserai/cara/agent/ingress/ondemand"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// grpcService is a real gRPC server in the place of a container.
type grpcService struct {
	testpb.UnimplementedTestServiceServer
	cut   chan struct{} // closing it cuts the connections of the server
	ended chan error    // why a stream that waits for its client has ended
}

func (s *grpcService) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if code := r.GetResponseStatus().GetCode(); code != 0 {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-detail", "in the trailer"))
		return nil, status.Error(codes.Code(code), r.GetResponseStatus().GetMessage())
	}
	if r.GetResponseSize() < 0 { // waits for its deadline
		<-ctx.Done()
		s.ended <- ctx.Err()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	in, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-detail", "in the trailer"))
	return &testpb.SimpleResponse{Username: strings.Join(in.Get("x-forwarded-for"), ","), Payload: r.GetPayload()}, nil
}

func (s *grpcService) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for _, p := range r.GetResponseParameters() {
		if err := out.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *grpcService) StreamingInputCall(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	sum := 0
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(r.GetPayload().GetBody())
	}
}

func (s *grpcService) FullDuplexCall(both grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		r, err := both.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			select {
			case s.ended <- err:
			default:
			}
			return err
		}
		if err := both.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

// startGRPC starts the server and returns its port.
func startGRPC(t *testing.T) (*grpcService, int32) {
	t.Helper()
	s := &grpcService{cut: make(chan struct{}), ended: make(chan error, 10)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	testpb.RegisterTestServiceServer(srv, s)
	go func() { _ = srv.Serve(l) }()
	go func() {
		select {
		case <-s.cut:
		case <-t.Context().Done():
		}
		srv.Stop()
	}()
	t.Cleanup(srv.Stop)
	return s, int32(l.Addr().(*net.TCPAddr).Port)
}

// throughAll runs a test with a client at each kind of listener, and the service at this node and at another.
func throughAll(t *testing.T, test func(t *testing.T, s *grpcService, c testpb.TestServiceClient)) {
	for _, where := range []string{"this node", "another node"} {
		for _, listener := range []string{"internal", "public"} {
			t.Run(where+", "+listener, func(t *testing.T) {
				s, port := startGRPC(t)
				f := grpcFront(t, port, where == "another node", Limits{})
				test(t, s, testpb.NewTestServiceClient(f.dial(t, listener == "public")))
			})
		}
	}
}

// grpcFront is an agent that serves a host whose service speaks H2C, itself or through another agent.
func grpcFront(t *testing.T, port int32, hop bool, limits Limits) *front {
	t.Helper()
	nodes := cluster(t)
	route := publicRoute("a.b", "", port)
	route.Protocol, route.Features = api.TargetH2C, []string{api.FeatureH2C}
	endpoint := up("127.0.0.1")
	table := &carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{route}}}}
	if hop {
		second, address := serving(t, Config{Node: "n2", Endpoint: endpoint, Peers: nodes("n2"), Limits: limits})
		route.Node, route.IngressAddress, endpoint = "n2", address, down
		second.Apply(table)
	}
	f := publicFront(t, Config{Node: "n1", Endpoint: endpoint, Peers: nodes("n1"), Limits: limits})
	f.Apply(table)
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.b")}})
	return f
}

func (f *front) dial(t *testing.T, public bool, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	address, how := f.internal, insecure.NewCredentials()
	if public {
		address, how = f.https, grpctls.NewTLS(&tls.Config{RootCAs: f.ca.Pool(), ServerName: "a.b"})
	}
	c, err := grpc.NewClient("passthrough:///"+address, append(more, grpc.WithTransportCredentials(how), grpc.WithAuthority("a.b"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func payload(size int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, size)} }

func TestGRPC(t *testing.T) {
	throughAll(t, func(t *testing.T, s *grpcService, c testpb.TestServiceClient) {
		var trailer metadata.MD
		r, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload(1 << 20)}, grpc.Trailer(&trailer))
		if err != nil || r.GetUsername() != "127.0.0.1" || len(r.GetPayload().GetBody()) != 1<<20 || trailer.Get("x-detail")[0] != "in the trailer" {
			t.Fatalf("unary: %q, %v, %v", r.GetUsername(), trailer, err)
		}
		_, err = c.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.DataLoss), Message: "lost: äöü %"}}, grpc.Trailer(&trailer))
		if st := status.Convert(err); st.Code() != codes.DataLoss || st.Message() != "lost: äöü %" || trailer.Get("x-detail")[0] != "in the trailer" {
			t.Errorf("only trailers: %v, %v", err, trailer)
		}
		if _, err := c.EmptyCall(t.Context(), &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("a method that does not exist: %v", err)
		}

		out, err := c.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 1 << 20}, {Size: 0}, {Size: 3 << 20}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{1 << 20, 0, 3 << 20} {
			if m, err := out.Recv(); err != nil || len(m.GetPayload().GetBody()) != want {
				t.Fatalf("server stream: %d bytes, %v", len(m.GetPayload().GetBody()), err)
			}
		}
		if _, err := out.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the end of the server stream: %v", err)
		}

		in, err := c.StreamingInputCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := in.Send(&testpb.StreamingInputCallRequest{Payload: payload(1 << 17)}); err != nil {
				t.Fatal(err)
			}
		}
		if sum, err := in.CloseAndRecv(); err != nil || sum.GetAggregatedPayloadSize() != 20<<17 {
			t.Errorf("client stream: %v, %v", sum, err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		both, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			if err := echoes(both, n*1000); err != nil {
				t.Fatalf("both ways: %v", err)
			}
		}
		cancel()
		if err := <-s.ended; status.Code(err) != codes.Canceled {
			t.Errorf("the service learns that the client has cancelled: %v", err)
		}

		if err := learnsOfDeadline(t, s, c); err == nil {
			t.Error("the service does not learn of the deadline")
		}
	})
}

// learnsOfDeadline returns what ended a call with a deadline at the service. A call whose deadline is over before it has reached the
// service is made again with a later one.
func learnsOfDeadline(t *testing.T, s *grpcService, c testpb.TestServiceClient) error {
	t.Helper()
	for limit := 300 * time.Millisecond; limit < time.Minute; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: -1})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a deadline: %v", err)
		}
		select {
		case err := <-s.ended:
			return err
		case <-time.After(limit):
		}
	}
	return nil
}

func echoes(both grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse], size int) error {
	if err := both.Send(&testpb.StreamingOutputCallRequest{Payload: payload(size)}); err != nil {
		return err
	}
	m, err := both.Recv()
	if err == nil && len(m.GetPayload().GetBody()) != size {
		err = fmt.Errorf("%d bytes of %d", len(m.GetPayload().GetBody()), size)
	}
	return err
}

// TestACutStreamIsNoEnd: if the service ends in the middle of a stream, the client gets an error.
func TestACutStreamIsNoEnd(t *testing.T) {
	throughAll(t, func(t *testing.T, s *grpcService, c testpb.TestServiceClient) {
		both, err := c.FullDuplexCall(t.Context())
		if err == nil {
			err = echoes(both, 10)
		}
		if err != nil {
			t.Fatal(err)
		}
		close(s.cut)
		if _, err := both.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `Service "w" of project "p" ended the call.`) {
			t.Errorf("the stream ends with %v", err)
		}
		if _, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `Service "w" of project "p" did not answer on port `) {
			t.Errorf("a service that is gone: %v", err)
		}
	})
}

// TestManyStreams: a thousand streams at once, over several connections, each silent for longer than a body may be.
func TestManyStreams(t *testing.T) {
	_, port := startGRPC(t)
	f := grpcFront(t, port, true, Limits{Stall: 2 * time.Second})
	var all sync.WaitGroup
	ready, again := make(chan error, 1000), make(chan struct{})
	for range 10 {
		c := testpb.NewTestServiceClient(f.dial(t, false))
		// One after the other: each stream that begins while no connection has room opens another one to the other agent.
		all.Go(func() {
			for range 100 {
				both, err := c.FullDuplexCall(t.Context())
				if err == nil {
					err = echoes(both, 100)
				}
				ready <- err
				all.Go(func() {
					<-again
					if err == nil {
						err = echoes(both, 100)
					}
					ready <- err
				})
			}
		})
	}
	wait := func(what string) {
		for range 1000 {
			if err := <-ready; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	wait("first")
	slow := raw(t, f.internal, "POST /grpc.testing.TestService/UnaryCall HTTP/1.1\r\nHost: a.b\r\nContent-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 10\r\n\r\nx") // its body stalls later than those of the streams would
	answer, _ := io.ReadAll(slow)
	if !strings.Contains(string(answer), "408") {
		t.Errorf("a stalled HTTP/1.1 body: %q", answer)
	}
	close(again)
	wait("after the silence")
	all.Wait()
}

// TestALateStreamMayBeSilent: a stream that has waited for its route for longer than a body may stand still can be silent like others.
func TestALateStreamMayBeSilent(t *testing.T) {
	_, port := startGRPC(t)
	_, plain := service(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) }) // a gRPC server would answer at once with what is no HTTP/1.1
	limits := Limits{Stall: time.Second}
	f := publicFront(t, Config{Node: "n1", Endpoint: up("127.0.0.1"), Limits: limits, OnDemand: &ondemand.Limits{Patience: 2 * time.Minute}})
	f.ondemand.Connected(true)
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{publicRoute("slow.b", "", plain)}})
	c := testpb.NewTestServiceClient(f.dial(t, false))
	echoed := make(chan error, 1)
	go func() {
		both, err := c.FullDuplexCall(t.Context())
		if err == nil {
			err = echoes(both, 100)
		}
		echoed <- err
	}()
	f.taken(t)
	slow := raw(t, f.internal, "POST / HTTP/1.1\r\nHost: slow.b\r\nContent-Length: 10\r\n\r\nx") // its body stalls later than that of the stream would
	if answer, _ := io.ReadAll(slow); !strings.Contains(string(answer), "408") {
		t.Errorf("a stalled HTTP/1.1 body: %q", answer)
	}
	route := publicRoute("a.b", "", port)
	route.Protocol, route.Features = api.TargetH2C, []string{api.FeatureH2C}
	f.Apply(&carav1.Routes{FeatureHosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{route}}}})
	if err := <-echoed; err != nil {
		t.Error(err)
	}
}

// TestRecordingsHaveLimits: a body is kept until its request has been sent, and not at all if it is too large, alone or with the others.
func TestRecordingsHaveLimits(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		others int64 // bytes of other bodies
		kept   int64
	}{
		"nothing":              {0, 0, 0},
		"small":                {100, 0, 100},
		"the largest":          {maxRecorded, 0, maxRecorded},
		"too large":            {maxRecorded + 1, 0, 0},
		"the last one":         {100, maxRecordedAll - 100, 100},
		"too many others":      {100, maxRecordedAll - 99, 0},
		"large, with a few":    {maxRecorded, maxRecordedAll - maxRecorded, maxRecorded},
		"large, with too many": {maxRecorded, maxRecordedAll - maxRecorded + 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var all atomic.Int64
			all.Store(c.others)
			rec := &recording{body: strings.NewReader(strings.Repeat("x", c.size)), all: &all}
			if n, err := io.Copy(io.Discard, &recorded{from: rec}); n != int64(c.size) || err != nil {
				t.Errorf("read %d bytes, %v", n, err)
			}
			if kept := all.Load() - c.others; kept != c.kept {
				t.Errorf("%d bytes are kept, want %d", kept, c.kept)
			}
			again, err := rec.again()
			if whole := c.kept == int64(c.size); (err == nil) != whole || rec.gone() == whole {
				t.Errorf("it can be sent again: %v, want %v", err, whole)
			} else if whole {
				if text, err := io.ReadAll(again); len(text) != c.size || err != nil {
					t.Errorf("the second time %d bytes, %v", len(text), err)
				}
			}
			rec.forget()
			rec.forget()
			if kept := all.Load() - c.others; kept != 0 {
				t.Errorf("%d bytes are kept after the end", kept)
			}
		})
	}
}
