package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// files is the server's side.
type files struct {
	carav1.FileServiceClient
	contents map[string]string
	calls    int
}

func (f *files) GetBlob(_ context.Context, req *carav1.GetRequest, _ ...grpc.CallOption) (*carav1.BlobContent, error) {
	f.calls++
	c, ok := f.contents[req.GetName()]
	if !ok {
		return nil, api.NotFound("it is not stored")
	}
	return &carav1.BlobContent{Content: []byte(c)}, nil
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func TestFetch(t *testing.T) {
	a, b, dir := digestOf("a"), digestOf("b"), filepath.Join(t.TempDir(), "files")
	server, used := &files{contents: map[string]string{a: "a", b: "b"}}, map[string]bool{a: true, b: true}
	open := func() *Store { return New(dir, server, func() map[string]bool { return used }) }
	s := open()
	if m := s.Missing([]string{a, b}); len(m) != 2 {
		t.Errorf("missing %v", m)
	}
	if err := s.Fetch(t.Context(), []string{a, b}); err != nil {
		t.Fatal(err)
	}
	s = open() // another agent, without a server
	server.contents = nil
	if err := s.Fetch(t.Context(), []string{a, b}); err != nil || server.calls != 2 {
		t.Errorf("%v after %d calls, want what is on disk", err, server.calls)
	}
	if got, err := s.Read(a); err != nil || string(got) != "a" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, a), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(a); err == nil || !s.Missing([]string{a})[a] {
		t.Errorf("a damaged content is read (%v), or not fetched again", err)
	}
	used = map[string]bool{a: true}
	if err := s.Fetch(t.Context(), []string{a}); err == nil || !strings.Contains(err.Error(), "it is not stored") {
		t.Errorf("fetch: %v", err)
	}
	server.contents = map[string]string{a: "not a"}
	if err := s.Fetch(t.Context(), []string{a}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a content that its digest does not have is taken: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != a {
		t.Errorf("kept %v, want only what is used", left)
	}
	if _, err := s.Read("../content_test.go"); err == nil {
		t.Error("read what is no digest")
	}
}
