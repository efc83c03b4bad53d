package git_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
	"github.com/caravanserai/cara/sources/sourcetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(refServer) != "" {
		serveRefs() // a benchmark's server, in a process of its own
		return
	}
	testneed.AtOnce(8) // they mostly wait for the next look at a source
	goleak.VerifyTestMain(m)
}

func config() git.Config {
	return git.Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

// repository is a git repository as a subject.
type repository struct {
	*testgit.TestRepo
	url         string
	secret      map[string][]byte
	brk, mended func()
}

func (r *repository) Spec() *carav1.SourceSpec {
	s := &carav1.SourceSpec{Git: &carav1.GitSource{Url: r.url, Ref: &carav1.GitRef{Branch: "main"}}}
	if r.secret != nil {
		s.Git.SecretRef = "credentials"
	}
	return s
}
func (r *repository) Secret() map[string][]byte { return r.secret }
func (r *repository) Opener() sources.Opener    { return git.New(config()) }
func (r *repository) Break()                    { r.brk() }
func (r *repository) Mend()                     { r.mended() }

func (r *repository) Publish() {
	r.Commit("change")
	r.Push()
}

func overHTTP(t testing.TB) *repository {
	root := t.TempDir()
	server := testgit.ServeHTTP(t, root, false)
	return &repository{
		TestRepo: testgit.New(t, root, "app"), url: server.RepoURL("app"),
		brk: func() { server.Set(testgit.Fault{Status: 503}) }, mended: func() { server.Set(testgit.Fault{}) },
	}
}

func overHTTPS(t testing.TB) *repository {
	root := t.TempDir()
	server := testgit.ServeHTTP(t, root, true)
	server.Login("ada", "hunter2-planted")
	return &repository{
		TestRepo: testgit.New(t, root, "app"), url: server.RepoURL("app"),
		secret: map[string][]byte{"username": []byte("ada"), "password": []byte("hunter2-planted"), "ca.crt": server.CA},
		brk:    func() { server.Login("ada", "changed") }, mended: func() { server.Login("ada", "hunter2-planted") },
	}
}

func overSSH(t testing.TB) *repository {
	root := t.TempDir()
	server := testgit.ServeSSH(t, root)
	return &repository{
		TestRepo: testgit.New(t, root, "app"), url: server.RepoURL("app"),
		secret: map[string][]byte{"ssh-privatekey": server.PrivateKey, "known_hosts": []byte(server.KnownHosts)},
		brk: func() {
			if err := server.Down(); err != nil {
				t.Error(err)
			}
		},
		mended: func() {
			if err := server.Up(t.Context()); err != nil {
				t.Error(err)
			}
		},
	}
}

// TestContract runs the whole contract over HTTP and on a local path. What is made of a tree is the same for the others.
func TestContract(t *testing.T) {
	for name, c := range map[string]struct {
		run     func(*testing.T, func(*testing.T) sourcetest.Subject)
		subject func(testing.TB) *repository
	}{
		"http":                  {sourcetest.Run, overHTTP},
		"https with a password": {sourcetest.RunWire, overHTTPS},
		"ssh":                   {sourcetest.RunWire, overSSH},
		"local path":            {sourcetest.Run, local},
	} {
		t.Run(name, func(t *testing.T) {
			c.run(t, func(t *testing.T) sourcetest.Subject { return c.subject(t) })
		})
	}
}

func local(t testing.TB) *repository {
	root := t.TempDir()
	repo := testgit.New(t, root, "app")
	path := filepath.Join(root, "app.git")
	return &repository{
		TestRepo: repo, url: path,
		brk: func() {
			if err := os.Rename(path, path+".away"); err != nil {
				t.Error(err)
			}
		},
		mended: func() {
			if err := os.Rename(path+".away", path); err != nil {
				t.Error(err)
			}
		},
	}
}
