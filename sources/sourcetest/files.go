package sourcetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// MissingBlobs returns which contents were not stored yet.
func (s *Server) MissingBlobs(_ context.Context, req *carav1.MissingBlobsRequest) (*carav1.MissingBlobsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &carav1.MissingBlobsResponse{}
	for _, digest := range req.GetDigests() {
		if _, ok := s.blobs[digest]; !ok {
			out.Digests = append(out.Digests, digest)
		}
	}
	return out, nil
}

// PutBlob stores a content.
func (s *Server) PutBlob(_ context.Context, req *carav1.BlobContent) (*carav1.PutBlobResponse, error) {
	sum := sha256.Sum256(req.GetContent())
	digest := hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs = map[string]string{}
	}
	s.blobs[digest] = string(req.GetContent())
	s.puts++
	return &carav1.PutBlobResponse{Digest: digest}, nil
}

// stored returns the stored contents of a project's files, as `path in the container: content`, and how often contents were
// stored.
func (s *Server) stored(p *carav1.Project) (files []string, puts int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, svc := range p.GetSpec().GetServices() {
		for _, f := range svc.GetFiles() {
			for _, e := range f.GetEntries() {
				content, ok := s.blobs[e.GetDigest()]
				files = append(files, fmt.Sprintf("%s %s: %q %t", api.EntryPath(f, e), api.EntryMode(f, e), content, ok && int(e.GetSize()) == len(content)))
			}
		}
	}
	return files, s.puts
}

// withFiles returns a manifest whose service has files.
func withFiles(name string, froms ...string) string {
	var m strings.Builder
	m.WriteString(Project(name, "web:1") + "    files:\n")
	for i, from := range froms {
		fmt.Fprintf(&m, "    - {path: /etc/f%d, from: %s}\n", i, from)
	}
	return m.String()
}

func usesFiles(t *testing.T, w *Harness) {
	s := w.Subject
	s.Write("apps/a/a.yaml", withFiles("a", "./nginx.conf", "../shared/"))
	s.Write("apps/a/nginx.conf", "listen 80;\r\n")
	s.Write("apps/shared/one", "1")
	s.Write("apps/shared/sub/.two", "\x00\xff")
	for i := range 5 {
		s.Write(fmt.Sprintf("apps/b%d/b.yaml", i), withFiles(fmt.Sprintf("b%d", i), "./same.conf"))
		s.Write(fmt.Sprintf("apps/b%d/same.conf", i), "same")
	}
	s.Publish()
	w.Create(func(spec *carav1.SourceSpec) { spec.Path = "apps" })
	p := w.Published(1)
	if !p.Head.Complete || len(p.Upserts) != 6 {
		t.Fatalf("published %v", p)
	}
	files, puts := w.Server.stored(p.Upserts[0].Project)
	if diff := cmp.Diff([]string{
		`/etc/f0 0444: "listen 80;\r\n" true`, `/etc/f1/one 0444: "1" true`, `/etc/f1/sub/.two 0444: "\x00\xff" true`,
	}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if puts != 4 {
		t.Errorf("stored %d times, want each content once", puts)
	}
	w.unwritten(t)

	s.Write("apps/a/nginx.conf", "listen 81;\n")
	p = w.push(2)
	if len(p.Upserts) != 1 || p.Upserts[0].Project.Metadata.Name != "a" || p.Upserts[0].Revision != p.Head.Revision {
		t.Errorf("published %v, want only what uses the file", p)
	}
	if files, puts = w.Server.stored(p.Upserts[0].Project); files[0] != `/etc/f0 0444: "listen 81;\n" true` || puts != 5 {
		t.Errorf("files %q, stored %d times", files, puts)
	}
	w.unwritten(t)

	s.Write("apps/shared/three", "3") // a new file in a folder
	p = w.push(3)
	if files, _ := w.Server.stored(p.Upserts[0].Project); len(p.Upserts) != 1 || len(files) != 4 {
		t.Errorf("published %v, files %q", p, files)
	}
}

// unwritten checks that nothing is written while nothing changes, also by a restart.
func (w *Harness) unwritten(t *testing.T) {
	t.Helper()
	w.Looked()
	before := len(w.Server.Publishes())
	w.Looked()
	w.Stop()
	w.Start()
	polled := w.Server.Polled(Name)
	w.Wait("a poll after the restart", func() bool { return w.Server.Polled(Name) > polled })
	if n := len(w.Server.Publishes()) - before; n != 0 {
		t.Errorf("%d snapshots where nothing changed", n)
	}
}

func badFiles(t *testing.T, w *Harness) {
	s := w.Subject
	for name, from := range map[string]string{
		"escapes": "../../etc/passwd", "leaves": "../other/x", "absent": "./later.conf", "link": "./link", "below": "link/x",
		"slash": "./real/", "git": "./.git/config", "large": "./large", "empty": "''",
	} {
		s.Write("apps/"+name+".yaml", withFiles(name, from))
	}
	s.Write("apps/set.yaml", strings.Replace(withFiles("set", "./real"), "from: ./real", "from: ./real, entries: [{digest: "+strings.Repeat("a", 64)+"}]", 1))
	s.Write("other/x", "secret of another team")
	s.Write("apps/real", "real")
	s.Write("apps/large", strings.Repeat("x", api.MaxFileBytes+1))
	s.Symlink("apps/link", "real")
	s.Publish()
	w.Create(func(spec *carav1.SourceSpec) { spec.Path = "apps" })
	p := w.Published(1)
	got := map[string]string{}
	for _, f := range p.Head.FileErrors {
		got[f.File] = fmt.Sprintf("%d: %s: %s", f.Line, f.Path, f.Message)
	}
	const at = "10: spec.services[0].files[0].from: "
	for file, want := range map[string]string{
		"escapes": at + "../../etc/passwd leaves the source", "leaves": at + `../other/x leaves the source: the path must be below spec.path "apps"`,
		"absent": at + "apps/later.conf does not exist", "link": at + "apps/link is a symbolic link", "below": at + "apps/link is",
		"slash": at + "./real/ is a file, not a folder", "git": at + "apps/.git is named like git's own folder",
		"large": at + "apps/large has", "set": "10: spec.services[0].files[0].entries: is set by Cara; remove it",
	} {
		if !strings.HasPrefix(got["apps/"+file+".yaml"], want) {
			t.Errorf("%s: got %q, want %q", file, got["apps/"+file+".yaml"], want)
		}
	}
	w.want(t, "empty apps/empty.yaml:1")

	s.Write("apps/later.conf", "here")
	if p = w.push(2); len(p.Upserts) != 1 || p.Upserts[0].Project.Metadata.Name != "absent" {
		t.Errorf("published %v, want the project whose file is there now", p)
	}
}
