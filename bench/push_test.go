package bench

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/reconciler"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/dir"
	"github.com/caravanserai/cara/sources/git"
)

const firstImage = "registry.example.com/web:1"

// declared is a server with sources and reconciler but no node: what is declared becomes projects that wait.
type declared struct {
	*house
	*picture
	client carav1.SourceServiceClient
}

func newDeclared(b *testing.B) *declared {
	b.Helper()
	h := newHouse(b, nil)
	s := sources.New(sources.Config{
		Conn: h.inside(b, "sources"), Logger: quiet(), Dir: dir.New(dir.Config{}),
		Git: git.New(git.Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
	})
	h.run(b, s.Run)
	h.run(b, reconciler.New(reconciler.Config{Conn: h.inside(b, "reconciler"), Logger: quiet()}).Run)
	conn := h.dial(b)
	return &declared{house: h, picture: h.follow(b, conn, api.KindProject, api.KindSource), client: carav1.NewSourceServiceClient(conn)}
}

// watch declares the source "platform" and waits until its n projects are there and it says so.
func (d *declared) watch(b *testing.B, spec *carav1.SourceSpec, n int) {
	b.Helper()
	d.apply(b, proto.Message(&carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform"}, Spec: spec,
	}))
	d.until(b, func() bool {
		s, _ := loop.Get[*carav1.Source](d.Mirror, "platform")
		return s.GetStatus().GetAppliedRevision() != "" && int(s.GetStatus().GetProjects()) == n
	})
	if have := len(loop.All[*carav1.Project](d.Mirror)); have != n {
		b.Fatalf("%d projects, want %d", have, n)
	}
}

// reconcile asks for a pass and returns its token.
func (d *declared) reconcile(b *testing.B) string {
	b.Helper()
	resp, err := d.client.ReconcileSource(b.Context(), &carav1.GetRequest{Name: "platform"})
	must(b, err)
	return resp.GetToken()
}

func (d *declared) handled(token string) func() bool {
	return func() bool {
		s, _ := loop.Get[*carav1.Source](d.Mirror, "platform")
		return s.GetStatus().GetHandledToken() == token
	}
}

func (d *declared) runsImage(image string) func() bool {
	return func() bool {
		p, _ := loop.Get[*carav1.Project](d.Mirror, "p-1")
		return p.GetSpec().GetServices()[0].GetImage() == image
	}
}

func file(i int) string { return fmt.Sprintf("team-%d/p-%d.yaml", i%100, i) }

// repository has p-0 to p-(n-1), behind git http-backend.
func repository(b *testing.B, n int) (*testgit.TestRepo, *testgit.HTTP) {
	b.Helper()
	root := b.TempDir()
	repo := testgit.New(b, root, "platform")
	for i := range n {
		repo.Write(file(i), text(fmt.Sprintf("p-%d", i), firstImage))
	}
	repo.Commit("Declare everything")
	repo.Push()
	_, err := repo.Git(b.Context(), "--git-dir", repo.Bare, "gc", "--quiet")
	must(b, err)
	return repo, testgit.ServeHTTP(b, root, false)
}

// BenchmarkPush is one project of n changing: for git from the word that there is something new (what a webhook would
// say), for a directory from the write of the file, until a client that watches sees the new spec. The directory's
// 150 ms of waiting for an editor to finish are in it.
func BenchmarkPush(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("git/projects=%d", n), func(b *testing.B) {
			repo, server := repository(b, n)
			d := newDeclared(b)
			d.watch(b, &carav1.SourceSpec{Interval: "1h", Git: &carav1.GitSource{Url: server.RepoURL("platform")}}, n)
			cpu, n := time.Duration(0), 0
			for i := 2; b.Loop(); i++ {
				b.StopTimer()
				image := fmt.Sprintf("registry.example.com/web:%d", i)
				repo.Write(file(1), text("p-1", image))
				repo.Commit("Change one")
				repo.Push()
				before := processor()
				b.StartTimer()
				token := d.reconcile(b)
				d.until(b, d.runsImage(image))
				b.StopTimer()
				cpu, n = cpu+processor()-before, n+1
				d.until(b, d.handled(token))
				b.StartTimer()
			}
			b.ReportMetric(cpu.Seconds()*1000/float64(n), "cpu-ms/op")
		})
		b.Run(fmt.Sprintf("dir/projects=%d", n), func(b *testing.B) {
			at := b.TempDir()
			for i := range n {
				write(b, filepath.Join(at, file(i)), text(fmt.Sprintf("p-%d", i), firstImage))
			}
			d := newDeclared(b)
			d.watch(b, &carav1.SourceSpec{Interval: "1h", Dir: &carav1.DirSource{Path: at}}, n)
			for i := 2; b.Loop(); i++ {
				image := fmt.Sprintf("registry.example.com/web:%d", i)
				write(b, filepath.Join(at, file(1)), text("p-1", image))
				d.until(b, d.runsImage(image))
			}
		})
	}
}

// BenchmarkNothingNew is a pass that somebody asked for over n projects that are as git says, from the question to
// the source's answer that it was done: a probe and the pass.
func BenchmarkNothingNew(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("projects=%d", n), func(b *testing.B) {
			_, server := repository(b, n)
			d := newDeclared(b)
			d.watch(b, &carav1.SourceSpec{Interval: "1h", Git: &carav1.GitSource{Url: server.RepoURL("platform")}}, n)
			for b.Loop() {
				d.until(b, d.handled(d.reconcile(b)))
			}
		})
	}
}

// BenchmarkFirstSync is a source of n projects that nobody knows yet, from its creation until the last project is in
// the store and the source says so.
func BenchmarkFirstSync(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("projects=%d", n), func(b *testing.B) {
			_, server := repository(b, n)
			cpu := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				d := newDeclared(b)
				before := processor()
				b.StartTimer()
				d.watch(b, &carav1.SourceSpec{Interval: "1h", Git: &carav1.GitSource{Url: server.RepoURL("platform")}}, n)
				b.StopTimer()
				cpu += processor() - before
				d.close()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "projects/s")
			b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

func write(b *testing.B, path, content string) {
	b.Helper()
	must(b, os.MkdirAll(filepath.Dir(path), 0o755))
	must(b, os.WriteFile(path+".new", []byte(content), 0o644))
	must(b, os.Rename(path+".new", path))
}
