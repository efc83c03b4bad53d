// Package tests3 runs a real S3 server, versitygw, for tests of what stores data there. It keeps objects as files in a directory.
package tests3

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// Credentials of the server.
const (
	AccessKey = "cara-test-access"
	SecretKey = "cara-test-secret-key"
)

// module is the server's program, whose version its own go.mod pins.
const module = "github.com/versity/versitygw/cmd/versitygw"

// Server is a running S3 server.
type Server struct {
	URL string // such as http://127.0.0.1:7070
	Dir string // with a directory for each bucket
}

// Start runs a server until the test ends. Building it takes minutes for the first time on a machine.
func Start(tb testing.TB) *Server {
	tb.Helper()
	testneed.NotShort(tb)
	program := build(tb)
	dir := tb.TempDir()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	cmd := exec.CommandContext(ctx, program, "--port", address, "--access", AccessKey, "--secret", SecretKey, "--quiet", "posix", dir)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
		if tb.Failed() {
			tb.Logf("versitygw: %s", output.Bytes())
		}
	})
	await(tb, address)
	return &Server{URL: "http://" + address, Dir: dir}
}

// build returns the path of the program, and builds it if this machine does not have it yet.
func build(tb testing.TB) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "versitygw")
	version, err := goCommand(tb.Context(), dir, "list", "-m", "-f", "{{.Version}}", "github.com/versity/versitygw")
	if err != nil {
		testneed.Missing(tb, "the S3 server versitygw: %v", err)
	}
	path := filepath.Join(cache, "cara-test", "versitygw-"+string(bytes.TrimSpace(version)))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	if _, err := goCommand(tb.Context(), dir, "build", "-o", fresh, module); err != nil {
		testneed.Missing(tb, "the S3 server versitygw: %v", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		tb.Fatal(err)
	}
	return path
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %v: %w: %s", args, err, stderr.Bytes())
	}
	return out, nil
}

// await waits until something listens.
func await(tb testing.TB, address string) {
	tb.Helper()
	for until := time.Now().Add(time.Minute); ; {
		conn, err := new(net.Dialer).DialContext(tb.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close() // only a look
			return
		}
		if time.Now().After(until) {
			tb.Fatalf("versitygw does not listen: %v", err)
		}
	}
}
