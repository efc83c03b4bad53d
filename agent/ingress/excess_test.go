package ingress

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// TestStreamsOfAClientAreLimited: a client cannot have more requests under way over HTTP/2 than it may have connections, however many
// streams each connection allows. Other agents may, for their clients.
func TestStreamsOfAClientAreLimited(t *testing.T) {
	_, port := startGRPC(t)
	for name, hop := range map[string]bool{"here": false, "at another node": true} {
		t.Run(name, func(t *testing.T) {
			f := grpcFront(t, port, hop, Limits{Connections: 100, ClientConnections: 4})
			client := testpb.NewTestServiceClient(f.dial(t, true))
			open := fourStreams(t, client)
			if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
				t.Errorf("one more than the limit: %v", err)
			}
			if err := open.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if m, err := open.Recv(); err == nil {
				t.Fatalf("the stream goes on: %v", m)
			}
			if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Errorf("after one has ended: %v", err)
			}
		})
	}
}

// TestStreamsOfAClientThatDoesNotRead: the answers that a client does not read are limited, too.
func TestStreamsOfAClientThatDoesNotRead(t *testing.T) {
	_, port := startGRPC(t)
	f := grpcFront(t, port, false, Limits{Connections: 100, ClientConnections: 4})
	fourStreams(t, testpb.NewTestServiceClient(f.dial(t, false)))
	conn := raw(t, f.internal, http2.ClientPreface)
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil { // it takes no answer
		t.Fatal(err)
	}
	for id := uint32(1); id < 20; id += 2 {
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: plainHeaders(), EndHeaders: true}); err != nil {
			break
		}
	}
	for {
		if _, err := framer.ReadFrame(); err != nil {
			if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() {
				t.Errorf("the connection goes on: %v", err)
			}
			return
		}
	}
}

// fourStreams opens four streams that last, and returns one of them.
func fourStreams(t *testing.T, client testpb.TestServiceClient) (one grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) {
	t.Helper()
	for range 4 {
		both, err := client.FullDuplexCall(t.Context())
		if err == nil {
			err = echoes(both, 10)
		}
		if err != nil {
			t.Fatal(err)
		}
		one = both
	}
	return one
}

// plainHeaders returns the header block of a request that is no call, so that its answer has a body.
func plainHeaders() []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range []hpack.HeaderField{
		{Name: ":method", Value: http.MethodGet}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a.b"}, {Name: ":path", Value: "/"},
	} {
		_ = encoder.WriteField(h) // writing to a bytes.Buffer cannot fail
	}
	return block.Bytes()
}
