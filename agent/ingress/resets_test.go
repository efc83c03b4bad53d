package ingress

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// TestRapidReset: a client that opens and resets streams without end is disconnected. Others are served.
func TestRapidReset(t *testing.T) {
	_, port := startGRPC(t)
	f := grpcFront(t, port, false, Limits{})
	conn := raw(t, f.internal, http2.ClientPreface)
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := framer.ReadFrame(); err != nil {
				ended <- err
				return
			}
		}
	}()
	block := headers(http.MethodPost, "/grpc.testing.TestService/FullDuplexCall")
	for id := uint32(1); id < 2_000_000; id += 2 {
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
		if err == nil {
			err = framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			break
		}
	}
	select {
	case err := <-ended:
		if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() {
			t.Errorf("the connection goes on: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("a million resets are accepted")
		_ = conn.Close()
		if err := <-ended; err == nil {
			t.Error("reading goes on")
		}
	}
	if _, err := testpb.NewTestServiceClient(f.dial(t, false)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// headers returns the header block of a call.
func headers(method, path string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range []hpack.HeaderField{
		{Name: ":method", Value: method},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "a.b"},
		{Name: ":path", Value: path},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	} {
		_ = encoder.WriteField(h) // a Buffer takes everything
	}
	return block.Bytes()
}
