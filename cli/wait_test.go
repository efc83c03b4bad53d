package cli

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/cli/term"
)

// A server that accepts connections and says nothing uses up the time of a wait, and the exit code says so.
func TestWaitForASilentServer(t *testing.T) {
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("cara_x_y"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	a := &app{Streams: Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, version: "v1", now: time.Now}
	code := run(t.Context(), []string{"--server", "http://" + silent.Addr().String(), "--token-file", token, "wait", "project", "shop", "--timeout", "50ms"}, a)
	if code != term.ExitTimeout || !strings.Contains(errs.String(), "has not answered within 50ms") {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}
