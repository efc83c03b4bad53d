package git_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// contents reads every file of a source.
func contents(t *testing.T, spec *carav1.SourceSpec, secret map[string][]byte, cfg git.Config) (map[string]string, *sources.Tree, error) {
	t.Helper()
	tree, err := look(t, git.New(cfg), spec, secret)
	if err != nil {
		return nil, nil, err
	}
	all := map[string]string{}
	for _, f := range tree.Files {
		data, err := f.Read(t.Context())
		if err != nil {
			return nil, tree, err
		}
		all[f.Path] = string(data)
	}
	return all, tree, nil
}

func at(url string) *carav1.SourceSpec {
	return &carav1.SourceSpec{Git: &carav1.GitSource{Url: url, SecretRef: "s"}}
}

// run runs git in a folder.
func run(t *testing.T, r *testgit.TestRepo, args ...string) string {
	t.Helper()
	out, err := r.Git(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestADamagedRepositoryIsReported(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, object string){
		"blob missing": func(t *testing.T, object string) {
			if err := os.Remove(object); err != nil {
				t.Fatal(err)
			}
		},
		"blob cut off": func(t *testing.T, object string) {
			if err := os.Chmod(object, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(object, 12); err != nil {
				t.Fatal(err)
			}
		},
		"blob of another content": func(t *testing.T, object string) {
			root := t.TempDir()
			other := testgit.New(t, root, "other")
			other.Write("a.yaml", "something else")
			other.Commit("other")
			hash := run(t, other, "rev-parse", "HEAD:a.yaml")
			dir := run(t, other, "rev-parse", "--absolute-git-dir")
			data, err := os.ReadFile(filepath.Join(dir, "objects", hash[:2], hash[2:]))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(object); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(object, data, 0o644); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := local(t)
			r.Write("a.yaml", sourcetest.Project("a", "web:1"))
			r.Publish()
			hash := run(t, r.TestRepo, "rev-parse", "HEAD:a.yaml")
			damage(t, filepath.Join(r.url, "objects", hash[:2], hash[2:]))
			_, _, err := contents(t, at(r.url), nil, config())
			var e *sources.Error
			if !errors.As(err, &e) || e.Reason != api.ReasonReadFailed || !strings.HasPrefix(e.Message, "a.yaml in "+r.url) || !strings.Contains(e.Message, hash) {
				t.Errorf("err = %v, want one that names a.yaml and object %s", err, hash)
			}
		})
	}
}

// A push between probe and fetch removes the old commit.
func TestTheBranchMovesBetweenProbeAndFetch(t *testing.T) {
	for name, subject := range map[string]func(testing.TB) *repository{"http": overHTTP, "protocol 0": overOldHTTP, "ssh": overSSH, "local": local} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := subject(t)
			r.Write("a.yaml", sourcetest.Project("a", "web:1"))
			r.Publish()
			spec := r.Spec()
			d, err := git.New(config()).Open(spec, r.secret)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			before, err := d.Probe(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			run(t, r.TestRepo, "commit", "--amend", "--quiet", "--allow-empty", "-m", "again")
			r.ForcePush()
			bare := r.Bare
			run(t, r.TestRepo, "--git-dir", bare, "reflog", "expire", "--expire=now", "--all")
			run(t, r.TestRepo, "--git-dir", bare, "gc", "--quiet", "--prune=now")
			if tree, err := d.Tree(t.Context(), before); !errors.Is(err, sources.ErrMoved) {
				t.Fatalf("tree %v, err = %v; want ErrMoved", tree, err)
			}
			after, err := d.Probe(t.Context(), 0)
			if err != nil || after == before {
				t.Fatalf("probe %s, %v", after, err)
			}
			tree, err := d.Tree(t.Context(), after)
			if err != nil || len(tree.Files) != 1 {
				t.Fatalf("tree %v, %v", tree, err)
			}
			tree.Close()
		})
	}
}

func TestACommitThatNamesATag(t *testing.T) {
	for name, subject := range map[string]func(testing.TB) *repository{"http": overHTTP, "local": local} {
		t.Run(name, func(t *testing.T) {
			r := subject(t)
			r.Write("a.yaml", sourcetest.Project("a", "web:1"))
			commit := r.Commit("one")
			r.Tag("v1.0.0")
			r.Push()
			tag := run(t, r.TestRepo, "rev-parse", "v1.0.0")
			if tag == commit {
				t.Fatal("the tag is not annotated")
			}
			d, err := git.New(config()).Open(&carav1.SourceSpec{Git: &carav1.GitSource{Url: r.url, Ref: &carav1.GitRef{Commit: tag}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			rev, err := d.Probe(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := d.Tree(t.Context(), rev)
			if err != nil || tree.Revision != commit {
				t.Fatalf("tree %v, %v; want revision %s", tree, err, commit)
			}
			tree.Close()
			if rev, err := d.Probe(t.Context(), 0); err != nil || rev != commit {
				t.Errorf("probe %s, %v; want %s", rev, err, commit)
			}
		})
	}
}

func TestLocalRepositoriesAsGitReadsThem(t *testing.T) {
	root := t.TempDir()
	r := testgit.New(t, root, "app")
	want := sourcetest.Project("a", "web:1")
	r.Write("a.yaml", want)
	r.Commit("one")
	r.Push()
	bare := r.Bare
	clone := func(name string, args ...string) string {
		to := filepath.Join(root, name)
		run(t, r, append(append([]string{"clone", "--quiet"}, args...), bare, to)...)
		return to
	}
	shared := clone("shared.git", "--bare", "--shared")
	relative := clone("relative.git", "--bare", "--shared")
	if err := os.WriteFile(filepath.Join(relative, "objects/info/alternates"), []byte("# borrowed\n../../shared.git/objects\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	work := clone("work")
	linked := filepath.Join(root, "linked")
	run(t, r, "-C", work, "worktree", "add", "--quiet", "--detach", linked)
	partial := clone("partial.git", "--bare")
	for _, set := range [][]string{{"core.repositoryformatversion", "1"}, {"extensions.partialClone", "origin"}, {"extensions.worktreeConfig", "true"}} {
		run(t, r, "--git-dir", partial, "config", set[0], set[1])
	}
	odd := clone("a#b%20c.git", "--bare")
	for name, url := range map[string]string{
		"bare": bare, "without its suffix": strings.TrimSuffix(bare, ".git"), "file URL": "file://" + bare, "alternates": shared,
		"alternates of alternates": relative, "work tree": work, "linked work tree": linked, "partial clone": partial,
		"odd name": odd, "odd name as a URL": "file://" + root + "/a%23b%2520c.git",
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := contents(t, at(url), nil, config())
			if err != nil || got["a.yaml"] != want {
				t.Errorf("%v %v", got, err)
			}
		})
	}
	sha256 := filepath.Join(root, "sha256.git")
	run(t, r, "init", "--quiet", "--bare", "--object-format=sha256", sha256)
	if _, _, err := contents(t, at(sha256), nil, config()); err == nil || !strings.HasPrefix(err.Error(), "the repository's object format is sha256; only sha1 is read") {
		t.Errorf("sha256: %v", err)
	}
	run(t, r, "--git-dir", partial, "config", "extensions.frobnicate", "true")
	if _, _, err := contents(t, at(partial), nil, config()); err == nil || !strings.Contains(err.Error(), `has the extension "frobnicate", which is not known`) {
		t.Errorf("unknown extension: %v", err)
	}
}

func TestOddNamesOverTheNetwork(t *testing.T) {
	root := t.TempDir()
	const name = "a#b?c%d"
	r := testgit.New(t, root, name)
	r.Write("a.yaml", "x")
	r.Commit("one")
	r.Push()
	server := testgit.ServeHTTP(t, root, false)
	if got, _, err := contents(t, at(server.URL()+"/"+url.PathEscape(name)+".git"), nil, config()); err != nil || len(got) != 1 {
		t.Errorf("http: %v %v", got, err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	below, err := os.MkdirTemp(home, ".cara-test-*") //nolint:usetesting // the path is to begin with ~
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(below) })
	run(t, r, "clone", "--quiet", "--bare", r.Bare, filepath.Join(below, "r.git"))
	ssh := testgit.ServeSSH(t, root)
	keys := map[string][]byte{"ssh-privatekey": ssh.PrivateKey, "known_hosts": []byte(ssh.KnownHosts)}
	u, err := url.Parse(ssh.RepoURL("x"))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/~/" + filepath.Base(below) + "/r.git"
	if got, _, err := contents(t, at(u.String()), keys, config()); err != nil || len(got) != 1 {
		t.Errorf("%s: %v %v", u, got, err)
	}
}

func TestBadLinesOfKnownHostsAreSkipped(t *testing.T) {
	root := t.TempDir()
	r := testgit.New(t, root, "app")
	r.Write("a.yaml", "x")
	r.Commit("one")
	r.Push()
	ssh := testgit.ServeSSH(t, root)
	secret := map[string][]byte{
		"ssh-privatekey": ssh.PrivateKey,
		"known_hosts":    []byte("# hosts\nother.example.com ssh-ed25519 AAAA!planted\n" + ssh.KnownHosts + "\n|1|broken ssh-rsa AAAA\n"),
	}
	_, tree, err := contents(t, at(ssh.RepoURL("app")), secret, config())
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Warnings) != 1 || tree.Warnings[0].Line != 2 || tree.Warnings[0].File != "known_hosts of Secret s" ||
		!strings.HasSuffix(tree.Warnings[0].Message, ": line 2, 4") && !strings.HasSuffix(tree.Warnings[0].Message, ": line 2, 5") {
		t.Errorf("warnings %v", tree.Warnings)
	}
	secret["known_hosts"] = []byte("other.example.com ssh-ed25519 AAAA!planted\n")
	_, _, err = contents(t, at(ssh.RepoURL("app")), secret, config())
	if err == nil || !strings.Contains(err.Error(), "where these cannot be read: line 1;") || strings.Contains(err.Error(), "planted") {
		t.Errorf("err = %v", err)
	}
}

func TestAPasswordIsNotSentInTheClear(t *testing.T) {
	root := t.TempDir()
	r := testgit.New(t, root, "app")
	r.Write("a.yaml", "x")
	r.Commit("one")
	r.Push()
	server := testgit.ServeHTTP(t, root, false)
	server.Login("ada", planted)
	secret := map[string][]byte{"username": []byte("ada"), "password": []byte(planted)}
	spec := at(server.RepoURL("app"))
	before, _, _ := server.Totals()
	_, _, err := contents(t, spec, secret, config())
	var e *sources.Error
	if after, _, _ := server.Totals(); !errors.As(err, &e) || e.Reason != api.ReasonInsecureTransport || !strings.Contains(e.Message, "spec.git.insecure: true") || after != before {
		t.Errorf("err = %v, %v requests", err, after)
	}
	spec.Git.Insecure = true
	if got, _, err := contents(t, spec, secret, config()); err != nil || len(got) != 1 {
		t.Errorf("insecure: %v %v", got, err)
	}
}

func TestPathsThatAreNotRead(t *testing.T) {
	r := overHTTP(t)
	r.Write("a.yaml", "x")
	r.Write("real/b.yaml", "x")
	r.Write(".hidden/c.yaml", "x")
	r.Write("real/.d.yaml", "x")
	r.Write(".hidden/README.md", "x")
	r.Symlink("link", "real")
	r.Write(strings.Repeat("d/", 70)+"README.md", "x")
	r.Write(strings.Repeat("e/", 70)+"f.yaml", "x")
	commit := r.Commit("one")
	run(t, r.TestRepo, "update-index", "--add", "--cacheinfo", "160000,"+commit+",module")
	run(t, r.TestRepo, "commit", "--quiet", "-m", "submodule")
	r.Push()
	spec := at(r.url)
	_, tree, err := contents(t, spec, nil, config())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range tree.Unread {
		got = append(got, u.Path+" "+u.Why)
	}
	slices.Sort(got)
	if want := []string{"link " + sources.UnreadLink, "module " + sources.UnreadSubmodule}; !slices.Equal(got, want) {
		t.Errorf("unread %q, want %q", got, want)
	}
	hidden, err := tree.Hidden(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got = nil
	for _, f := range hidden {
		got = append(got, f.Path)
	}
	slices.Sort(got)
	if want := []string{".hidden/c.yaml", "real/.d.yaml"}; !slices.Equal(got, want) {
		t.Errorf("hidden %q, want %q", got, want)
	}
	if len(tree.Problems) != 1 || !strings.HasSuffix(tree.Problems[0].File, "/e/f.yaml") || !strings.Contains(tree.Problems[0].Message, "spec.exclude") {
		t.Errorf("problems %v", tree.Problems)
	}
}

func TestProxy(t *testing.T) {
	root := t.TempDir()
	r := testgit.New(t, root, "app")
	r.Write("a.yaml", "x")
	r.Commit("one")
	r.Push()
	server := testgit.ServeHTTP(t, root, false)
	target, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 100)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		asked <- fmt.Sprint(p.In.URL)
		p.SetURL(target)
	}})
	t.Cleanup(proxy.Close)
	proxyURL, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := git.Config{Proxy: proxyURL}
	if got, _, err := contents(t, at("http://git.invalid/app.git"), nil, cfg); err != nil || len(got) != 1 {
		t.Errorf("through the proxy: %v %v", got, err)
	}
	if first := <-asked; first != "http://git.invalid/app.git/info/refs?service=git-upload-pack" {
		t.Errorf("the proxy was asked for %s", first)
	}
	for len(asked) > 0 {
		<-asked
	}
	_, _, err = contents(t, at(server.RepoURL("app")), nil, cfg)
	var e *sources.Error
	if !errors.As(err, &e) || e.Reason != api.ReasonAddressRefused || len(asked) != 0 {
		t.Errorf("a loopback address through the proxy: %v", err)
	}
	t.Setenv("HTTP_PROXY", "http://proxy.invalid:1")
	_, _, err = contents(t, at(server.RepoURL("app")), nil, config())
	if err != nil {
		t.Errorf("the environment's proxy was used: %v", err)
	}
}
