package access

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestContextsAreKeptForTheUserAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cara", "contexts.json")
	put(t, file, "prod", Context{Server: "https://a:1", Token: "t"}, "prod")
	put(t, file, "local", Context{Server: "http://127.0.0.1:8080"}, "prod")
	if err := Use(file, "local"); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil || c.Current != "local" || c.Contexts["prod"].Token != "t" {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := Use(file, "nope"); err == nil {
		t.Error("a context that is not there was taken")
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func put(t *testing.T, file, name string, ctx Context, current string) {
	t.Helper()
	got, err := Put(file, name, ctx)
	if err != nil || got != current {
		t.Fatalf("current context after storing %s: %q, %v; want %q", name, got, err, current)
	}
}

// A context that a server stores must never redirect the user's next command.
func TestRemoveLeavesNoContextCurrent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "contexts.json")
	put(t, file, "prod", Context{Server: "https://a:1"}, "prod")
	put(t, file, "dev", Context{Server: "https://b:1"}, "prod")
	if err := Remove(file, "prod"); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file); err != nil || c.Current != "" || len(c.Contexts) != 1 {
		t.Errorf("got %+v, %v; want dev alone, and no current context", c, err)
	}
	if err := Remove(file, "prod"); err == nil {
		t.Error("a context that is not there was removed")
	}
	put(t, file, "new", Context{Server: "https://c:1"}, "new")
}

func TestDialRefuses(t *testing.T) {
	tests := map[string]struct {
		ctx  Context
		want string
	}{
		"a token in clear over the network": {Context{Server: "http://192.0.2.1:8080"}, "use https"},
		"no port":                           {Context{Server: "cara.example.com"}, "is not an address"},
		"one of several without TLS":        {Context{Server: "http://127.0.0.1:1,http://192.0.2.1:8080"}, "use https"},
		"several of different schemes":      {Context{Server: "https://a:1,http://127.0.0.1:8080"}, "use https for all of them"},
		"too many":                          {Context{Server: strings.Repeat("https://a:1,", maxServers) + "https://a:1"}, "give at most 16"},
		"a scheme of its own":               {Context{Server: "ftp://cara.example.com:1"}, "is not an address"},
		"a CA that is none":                 {Context{Server: "https://a", CA: "x"}, "no PEM certificate"},
		"an empty token file":               {Context{Server: "http://127.0.0.1:1", TokenFile: os.DevNull}, os.DevNull + " is empty"},
		"a token file that is not there":    {Context{Server: "http://127.0.0.1:1", TokenFile: "/nonexistent/t"}, "read token"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Dial(tt.ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAddressCompletesHostAndPort(t *testing.T) {
	for given, want := range map[string]string{
		"127.0.0.1:8080":         "http://127.0.0.1:8080",
		"localhost:8080":         "http://localhost:8080",
		"[::1]:8080":             "http://[::1]:8080",
		"cara.example.com:8080":  "https://cara.example.com:8080",
		"192.0.2.1:8080":         "https://192.0.2.1:8080",
		"https://a:1":            "https://a:1",
		"http://127.0.0.1:8080/": "http://127.0.0.1:8080/",
		"cara.example.com":       "cara.example.com",
		"a:1, b:2,https://c:3":   "https://a:1,https://b:2,https://c:3",
		"":                       "",
	} {
		if got := Address(given); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

// TestDialUsesTheServerThatAnswers: a server that is not there costs no call.
func TestDialUsesTheServerThatAnswers(t *testing.T) {
	there := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", strconv.Itoa(int(codes.Unimplemented)))
	}))
	there.EnableHTTP2 = true
	there.StartTLS()
	defer there.Close()
	pem := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: there.Certificate().Raw})
	conn, err := Dial(Context{Server: "https://127.0.0.1:1," + there.URL, CA: string(pem)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Invoke(t.Context(), "/x/Y", &emptypb.Empty{}, &emptypb.Empty{}, grpc.WaitForReady(true))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v, want the answer of the second server", err)
	}
}
