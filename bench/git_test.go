package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	gogit "github.com/go-git/go-git/v5"
	gogitconfig "github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
)

func openGit(b *testing.B, url string) sources.Driver {
	b.Helper()
	allow := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	d, err := git.New(git.Config{AllowCIDRs: allow}).Open(&carav1.SourceSpec{Git: &carav1.GitSource{Url: url, Ref: &carav1.GitRef{Branch: "main"}}}, nil)
	must(b, err)
	b.Cleanup(d.Close)
	return d
}

// BenchmarkRead10000 brings every one of 10,000 manifests of one commit over http, beside the ways that others take.
func BenchmarkRead10000(b *testing.B) {
	const n = 10_000
	_, server := repository(b, n)
	from := server.RepoURL("platform")
	b.Run("cara", func(b *testing.B) {
		d := openGit(b, from)
		b.ReportAllocs()
		for b.Loop() {
			revision, err := d.Probe(b.Context(), 0)
			must(b, err)
			tree, err := d.Tree(b.Context(), revision)
			must(b, err)
			for _, f := range tree.Files {
				_, err := f.Read(b.Context())
				must(b, err)
			}
			if tree.Close != nil {
				tree.Close()
			}
			if len(tree.Files) != n {
				b.Fatalf("%d files", len(tree.Files))
			}
		}
	})
	b.Run("go-git clone with worktree", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := gogit.PlainCloneContext(b.Context(), b.TempDir(), false, &gogit.CloneOptions{URL: from, Depth: 1, SingleBranch: true, Tags: gogit.NoTags})
			must(b, err)
		}
	})
	b.Run("git clone", func(b *testing.B) {
		for b.Loop() {
			must(b, run(b.Context(), "clone", "--quiet", "--depth=1", "--single-branch", from, filepath.Join(b.TempDir(), "clone")))
		}
	})
}

// BenchmarkProbe asks a repository with 20,000 refs whether there is something new, beside a plain listing by go-git
// and by git. wire-B is what came back from the server.
func BenchmarkProbe(b *testing.B) {
	repo, server := repository(b, 10)
	head, err := repo.Head(b.Context())
	must(b, err)
	var refs strings.Builder
	fmt.Fprintf(&refs, "# pack-refs with: peeled fully-peeled sorted \n%s refs/heads/main\n", head)
	for i := range 20_000 {
		fmt.Fprintf(&refs, "%s refs/pull/%05d/head\n", head, i)
	}
	must(b, os.WriteFile(filepath.Join(repo.Bare, "packed-refs"), []byte(refs.String()), 0o644))
	wire := counting(b, server.URL())
	from := strings.Replace(server.RepoURL("platform"), server.URL(), wire.url, 1)
	measure := func(name string, ask func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			ask(b) // connects, and learns what the server can do
			wire.bytes.Store(0)
			n := 0
			for b.Loop() {
				ask(b)
				n++
			}
			b.ReportMetric(float64(wire.bytes.Load())/float64(n), "wire-B/op")
		})
	}
	d := openGit(b, from)
	measure("cara", func(b *testing.B) {
		_, err := d.Probe(b.Context(), 0)
		must(b, err)
	})
	plain := gogit.NewRemote(memory.NewStorage(), &gogitconfig.RemoteConfig{Name: "origin", URLs: []string{from}})
	measure("go-git list", func(b *testing.B) {
		all, err := plain.ListContext(b.Context(), &gogit.ListOptions{})
		must(b, err)
		if len(all) < 20_000 || all[0].Type() == plumbing.InvalidReference {
			b.Fatalf("%d refs", len(all))
		}
	})
	measure("git ls-remote", func(b *testing.B) { must(b, run(b.Context(), "ls-remote", "--quiet", from, "refs/heads/main")) })
}

func run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}

// wire is a proxy that counts the bodies that come back.
type wire struct {
	url   string
	bytes atomic.Int64
}

func counting(b *testing.B, target string) *wire {
	b.Helper()
	to, err := url.Parse(target)
	must(b, err)
	w := &wire{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(resp *http.Response) error {
			resp.Body = &countedBody{resp.Body, &w.bytes}
			return nil
		},
	}
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	must(b, err)
	server := &http.Server{Handler: proxy}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	b.Cleanup(func() {
		if err := errors.Join(server.Close(), <-ended); !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
	})
	w.url = "http://" + l.Addr().String()
	return w
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
