package git_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// through puts a proxy before a server.
func through(t testing.TB, server *testgit.HTTP, change func(*httputil.ProxyRequest)) string {
	target, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		change(r)
	}})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

func oldProtocol(t testing.TB, server *testgit.HTTP) string {
	return through(t, server, func(r *httputil.ProxyRequest) { r.Out.Header.Del("Git-Protocol") })
}

// overOldHTTP is http by protocol 0, as servers spoke before 2018.
func overOldHTTP(t testing.TB) *repository {
	root := t.TempDir()
	server := testgit.ServeHTTP(t, root, false)
	return &repository{
		TestRepo: testgit.New(t, root, "app"),
		url:      oldProtocol(t, server) + "/app.git",
		brk:      func() { server.Set(testgit.Fault{Status: 500}) }, mended: func() { server.Set(testgit.Fault{}) },
	}
}

func TestProtocol0(t *testing.T) {
	sourcetest.RunWire(t, func(t *testing.T) sourcetest.Subject { return overOldHTTP(t) })
}

func TestRefs(t *testing.T) {
	for name, subject := range map[string]func(testing.TB) *repository{"http": overHTTP, "protocol 0": overOldHTTP, "local": local} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := subject(t)
			commits := map[string]string{}
			for _, tag := range []string{"v1.0.0", "v1.2.0", "v1.10.0", "v2.0.0-rc.1", "v2.0.0", "weekly"} {
				r.Write("a.yaml", tag)
				commits[tag] = r.Commit("for " + tag)
				r.Tag(tag)
			}
			r.Branch("feature/x")
			r.Write("a.yaml", "feature/x")
			commits["feature/x"] = r.Commit("feature")
			r.Push()
			r.Branch("main")
			r.Push()
			tests := []struct {
				ref        *carav1.GitRef
				want, full string
			}{
				{nil, "weekly", "refs/heads/main"},
				{&carav1.GitRef{Branch: "main"}, "weekly", "refs/heads/main"},
				{&carav1.GitRef{Branch: "refs/heads/main"}, "weekly", "refs/heads/main"},
				{&carav1.GitRef{Branch: "feature/x"}, "feature/x", "refs/heads/feature/x"},
				{&carav1.GitRef{Tag: "v1.0.0"}, "v1.0.0", "refs/tags/v1.0.0"},
				{&carav1.GitRef{Semver: ">=1.0 <2"}, "v1.10.0", "refs/tags/v1.10.0"},
				{&carav1.GitRef{Semver: "~1.2"}, "v1.2.0", "refs/tags/v1.2.0"},
				{&carav1.GitRef{Semver: ">=1"}, "v2.0.0", "refs/tags/v2.0.0"},
				{&carav1.GitRef{Semver: ">=2.0.0-0 <2.0.0"}, "v2.0.0-rc.1", "refs/tags/v2.0.0-rc.1"},
				{&carav1.GitRef{Commit: commits["weekly"]}, "weekly", ""},
			}
			if name != "protocol 0" { // there a server gives out only what it lists
				tests = append(tests, struct {
					ref        *carav1.GitRef
					want, full string
				}{&carav1.GitRef{Commit: commits["v1.0.0"]}, "v1.0.0", ""})
			}
			for _, tt := range tests {
				tree, err := look(t, git.New(config()), &carav1.SourceSpec{Git: &carav1.GitSource{Url: r.url, Ref: tt.ref}}, nil)
				if err != nil {
					t.Errorf("%v: %v", tt.ref, err)
					continue
				}
				data, err := tree.Files[0].Read(t.Context())
				if err != nil || string(data) != tt.want || tree.Revision != commits[tt.want] || tree.Ref != tt.full {
					t.Errorf("%v: %q at %s (%s), %v", tt.ref, data, tree.Revision, tree.Ref, err)
				}
			}
			tree, err := look(t, git.New(config()), &carav1.SourceSpec{Git: &carav1.GitSource{Url: r.url}}, nil)
			if err != nil || !strings.HasPrefix(tree.Author, "Ada <") || tree.Subject != "for weekly" || time.Since(tree.Time) > time.Hour {
				t.Errorf("provenance %q %q %s, %v", tree.Author, tree.Subject, tree.Time, err)
			}
		})
	}
}

func TestForcePush(t *testing.T) {
	r := overHTTP(t)
	w := sourcetest.New(t, r)
	w.Start()
	r.Write("a.yaml", sourcetest.Project("a", "web:1"))
	base := r.Commit("base")
	r.Write("b.yaml", sourcetest.Project("b", "web:1"))
	r.Publish()
	w.Create()
	w.Published(1)
	r.Reset(base)
	r.Write("c.yaml", sourcetest.Project("c", "web:1"))
	r.Commit("another history")
	r.ForcePush()
	w.Hint()
	w.Published(2)
	if got, want := w.Claims(), []string{"a a.yaml:1", "b b.yaml:1 absent", "c c.yaml:1"}; !slices.Equal(got, want) {
		t.Errorf("claims = %q", got)
	}
}

func TestDeletedBranchIsNotEmpty(t *testing.T) {
	r := overHTTP(t)
	w := sourcetest.New(t, r)
	w.Start()
	r.Write("a.yaml", sourcetest.Project("a", "web:1"))
	r.Publish()
	r.Branch("pr-1")
	r.Publish()
	w.Create(func(s *carav1.SourceSpec) { s.Git.Ref.Branch = "pr-1" })
	w.Published(1)
	r.Branch("main")
	r.DeleteBranch("pr-1")
	w.Hint()
	reason, message := w.Condition("FetchFailed", "True")
	if reason != "RefNotFound" || !strings.HasPrefix(message, `branch "pr-1" does not exist in `+r.url+`; it has main (what was read at `) {
		t.Errorf("%s: %s", reason, message)
	}
	if got, want := w.Claims(), []string{"a a.yaml:1"}; !slices.Equal(got, want) {
		t.Errorf("claims = %q", got)
	}
}

func TestOneProbeForManySources(t *testing.T) {
	root := t.TempDir()
	repo := testgit.New(t, root, "app")
	repo.Write("a.yaml", "x")
	repo.Commit("one")
	repo.Tag("v1")
	repo.Push()
	server := testgit.ServeHTTP(t, root, false)
	g := git.New(config())
	var drivers []sources.Driver
	for i := range 50 {
		ref := &carav1.GitRef{Branch: "main"}
		if i%2 == 1 {
			ref = &carav1.GitRef{Tag: "v1"}
		}
		d, err := g.Open(&carav1.SourceSpec{Git: &carav1.GitSource{Url: server.RepoURL("app"), Ref: ref}, Path: fmt.Sprint(i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		drivers = append(drivers, d)
	}
	probe := func(maxAge time.Duration) (requests int64) {
		server.Reset()
		var all sync.WaitGroup
		for _, d := range drivers {
			all.Go(func() {
				if rev, err := d.Probe(t.Context(), maxAge); err != nil || len(rev) != 40 {
					t.Errorf("%q, %v", rev, err)
				}
			})
		}
		all.Wait()
		requests, _, _ = server.Totals()
		return requests
	}
	probe(time.Minute)
	if n := probe(time.Minute); n != 0 {
		t.Errorf("%d requests though an answer was fresh enough", n)
	}
	if n := probe(0); n < 1 || n > 10 {
		t.Errorf("%d requests for 50 fresh probes at once", n)
	}
}

func TestRedirectWithinTheHost(t *testing.T) {
	root := t.TempDir()
	repo := testgit.New(t, root, "app")
	repo.Write("a.yaml", "x")
	repo.Commit("one")
	repo.Push()
	server := testgit.ServeHTTP(t, root, false)
	behind := through(t, server, func(*httputil.ProxyRequest) {})
	target, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/old/"); ok {
			http.Redirect(w, r, "/"+rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	tree, err := look(t, git.New(config()), &carav1.SourceSpec{Git: &carav1.GitSource{Url: front.URL + "/old/app.git"}}, nil)
	if err != nil || len(tree.Files) != 1 {
		t.Errorf("%v, %v", tree, err)
	}
}

// An endless stream costs no more than the limit, and a trickling one ends.
func TestStreamsWithoutEnd(t *testing.T) {
	const advert = "001e# service=git-upload-pack\n0000000eversion 2\n0000"
	const soon = time.Second // a busy machine takes a while to begin the answer, too
	tests := map[string]struct {
		idle time.Duration // zero: the default, because a busy machine is idle for a moment, too
		send func(w http.ResponseWriter, r *http.Request)
		want string
	}{
		"for ever": {0, func(w http.ResponseWriter, _ *http.Request) {
			line := fmt.Sprintf("%04x%s refs/heads/%s\n", 4+40+1+11+1000+1, strings.Repeat("a", 40), strings.Repeat("x", 1000))
			for {
				if _, err := w.Write([]byte(line)); err != nil {
					return
				}
			}
		}, "the list of refs is larger than 32 MiB"},
		"a byte now and then": {soon, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("fff0"))
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = w.Write([]byte("0"))
					w.(http.Flusher).Flush()
				}
			}
		}, "stopped sending; it will be tried again"},
		"silence": {soon, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "stopped sending; it will be tried again"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
					_, _ = w.Write([]byte(advert))
					return
				}
				w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				tt.send(w, r)
			}))
			t.Cleanup(server.Close)
			cfg := config()
			cfg.IdleTimeout = tt.idle
			_, err := look(t, git.New(cfg), &carav1.SourceSpec{Git: &carav1.GitSource{Url: server.URL + "/app.git"}}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %s", err, tt.want)
			}
		})
	}
}
