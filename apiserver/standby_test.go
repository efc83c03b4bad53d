package apiserver

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A standby answers every call with the reason, in the caller's protocol, and ends when it is told to.
func TestStandby(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- RunStandby(ctx, l, slog.New(slog.DiscardHandler), func() string { return "the active one is 100% there" })
	}()
	for path, want := range map[string]string{"/healthz": "200 ok", "/readyz": "503 the active one is 100% there", "/api/v1/projects": "503 the active one is 100% there"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		code, part, _ := strings.Cut(want, " ")
		if err != nil || !strings.HasPrefix(answer.Status, code) || !strings.Contains(string(text), part) {
			t.Errorf("%s: %s %s, %v; want %s", path, answer.Status, text, err, want)
		}
		if !answer.Close {
			t.Errorf("%s: the connection stays at the standby", path)
		}
		if err := answer.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = carav1.NewProjectServiceClient(conn).GetProject(t.Context(), &carav1.GetRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the active one is 100% there") {
		t.Errorf("gRPC: %v", err)
	}
	soon, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	if !conn.WaitForStateChange(soon, connectivity.Ready) {
		t.Error("the connection of gRPC stays at the standby")
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("end: %v", err)
	}
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the address is still served")
	}
}
