// Package tests3 runs a real S3 server, versitygw, for tests of what stores data there. It keeps objects as files in a directory.
package tests3

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// Credentials of the server.
const (
	AccessKey = "cara-test-access"
	SecretKey = "cara-test-secret-key"
)

// Server is a running S3 server.
type Server struct {
	URL string // such as http://127.0.0.1:7070
	Dir string // with a directory for each bucket
}

// Start runs a server until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	testneed.NotShort(tb)
	program := testneed.Build(tb, testneed.Pinned{
		Name: "versitygw", Folder: "tests3/versitygw", Module: "github.com/versity/versitygw", Package: "cmd/versitygw",
	})
	address, err := testcluster.FreeAddress()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	p, err := testcluster.Start(filepath.Join(tb.TempDir(), "versitygw.log"), os.Environ(),
		program, "--port", address, "--access", AccessKey, "--secret", SecretKey, "--quiet", "posix", dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Kill(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			tb.Logf("versitygw: %s", p.Tail(20))
		}
	})
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	if err := testcluster.WaitFor(ctx, "versitygw listens", listens(address)); err != nil {
		tb.Fatal(err)
	}
	return &Server{URL: "http://" + address, Dir: dir}
}

func listens(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
