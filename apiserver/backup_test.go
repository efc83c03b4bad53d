package apiserver

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// backupOf reads a whole backup.
func backupOf(t *testing.T, client carav1.InfoServiceClient) ([]byte, error) {
	t.Helper()
	stream, err := client.Backup(t.Context(), &emptypb.Empty{})
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, chunk.GetData()...)
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "backup-killed", "store")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	c := openCluster(t, dir, nil)
	client := carav1.NewInfoServiceClient(c.admin(t))
	archive, err := backupOf(t, client)
	if err != nil {
		t.Fatal(err)
	}
	restored := t.TempDir()
	var names []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(restored, filepath.FromSlash(h.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	for _, file := range c.id.Files() {
		if !slices.Contains(names, file) {
			t.Errorf("the archive lacks %s: %q", file, names)
		}
	}
	if found, err := filepath.Glob(filepath.Join(dir, "backup-*")); len(found) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", found, err)
	}
	// Everything else that a data directory holds is the store's.
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "store" && !slices.Contains(c.id.Files(), e.Name()) && !strings.HasPrefix(e.Name(), "node-") {
			t.Errorf("%s is in the data directory and in no backup", e.Name())
		}
	}
	again := openCluster(t, restored, nil)
	if again.id.ClusterID() != c.id.ClusterID() || again.id.CAHash() != c.id.CAHash() {
		t.Error("what was restored is another cluster")
	}

	c.backup.Lock()
	defer c.backup.Unlock()
	_, err = backupOf(t, client)
	testproblem.Want(t, err, codes.Unavailable, "")
}
