package git_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// many is a repository of n manifests over http.
func many(b *testing.B, n int) (root string, _ *testgit.TestRepo, _ *testgit.HTTP) {
	root = b.TempDir()
	repo := testgit.New(b, root, "app")
	if _, err := repo.Git(b.Context(), "config", "gc.auto", "0"); err != nil { // it goes on in the background
		b.Fatal(err)
	}
	for i := range n {
		repo.Write(fmt.Sprintf("team-%d/p%05d.yaml", i%100, i), sourcetest.Project(fmt.Sprintf("p%05d", i), "registry.example.com/web:1"))
	}
	repo.Commit("many")
	repo.Push()
	if _, err := repo.Git(b.Context(), "--git-dir", root+"/app.git", "gc", "-q"); err != nil {
		b.Fatal(err)
	}
	return root, repo, testgit.ServeHTTP(b, root, false)
}

func open(b *testing.B, url string, ref *carav1.GitRef) sources.Driver {
	d, err := git.New(config()).Open(&carav1.SourceSpec{Git: &carav1.GitSource{Url: url, Ref: ref}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	return d
}

// BenchmarkRead reads every manifest of a fresh commit over http, from the probe on.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{200, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, _, server := many(b, n)
			d := open(b, server.RepoURL("app"), nil)
			b.ReportAllocs()
			var peak uint64
			for b.Loop() {
				rev, err := d.Probe(b.Context(), 0)
				if err != nil {
					b.Fatal(err)
				}
				tree, err := d.Tree(b.Context(), rev)
				if err != nil {
					b.Fatal(err)
				}
				for _, f := range tree.Files {
					if _, err := f.Read(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
				if len(tree.Files) != n {
					b.Fatal(len(tree.Files))
				}
				tree.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(peak)/(1<<20), "live-MiB")
		})
	}
}

// BenchmarkList fetches a commit and lists its manifests without reading any: the cost of a change apart from the changed
// files.
func BenchmarkList(b *testing.B) {
	_, _, server := many(b, 1000)
	d := open(b, server.RepoURL("app"), nil)
	for b.Loop() {
		rev, err := d.Probe(b.Context(), 0)
		if err != nil {
			b.Fatal(err)
		}
		tree, err := d.Tree(b.Context(), rev)
		if err != nil {
			b.Fatal(err)
		}
		tree.Close()
	}
}

// BenchmarkProbe asks whether there is something new, of a repository with 20,000 refs.
func BenchmarkProbe(b *testing.B) {
	root, repo, server := many(b, 10)
	head := repo.Commit("tip")
	repo.Push()
	packed := strings.Builder{}
	packed.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	for i := range 20_000 {
		fmt.Fprintf(&packed, "%s refs/pull/%05d/head\n", head, i)
	}
	if err := os.WriteFile(filepath.Join(root, "app.git", "packed-refs"), []byte(packed.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	d := open(b, server.RepoURL("app"), &carav1.GitRef{Branch: "main"})
	if _, err := d.Probe(b.Context(), 0); err != nil {
		b.Fatal(err)
	}
	server.Reset()
	n := 0
	for b.Loop() {
		if _, err := d.Probe(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
		n++
	}
	_, _, out := server.Totals()
	b.ReportMetric(float64(out)/float64(n), "bytes/probe")
}

// BenchmarkOneChange is one change in 1,000 manifests, from the hint to the published snapshot.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, repo, server := many(b, n)
			w := sourcetest.New(b, &repository{TestRepo: repo, url: server.RepoURL("app")})
			w.Start()
			w.Create()
			w.Published(1)
			published := 1
			for b.Loop() {
				b.StopTimer()
				repo.Write("team-7/p00007.yaml", sourcetest.Project("p00007", fmt.Sprintf("web:%d", published+1)))
				repo.Commit("change")
				repo.Push()
				server.Reset()
				b.StartTimer()
				w.Ask()
				published++
				w.Published(published)
			}
			_, _, out := server.Totals()
			b.ReportMetric(float64(out), "bytes/change") // of the last
		})
	}
}
