package testgit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// clone uses the git program itself as the client and returns the files it got, or what it complained.
func clone(t *testing.T, url string, env ...string) (dir, complaint string) {
	t.Helper()
	dir = t.TempDir()
	if _, err := git(t.Context(), dir, env, "clone", "--quiet", url, "."); err != nil {
		return dir, err.Error()
	}
	return dir, ""
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRepoHistory(t *testing.T) {
	root := t.TempDir()
	repo := New(t, root, "platform")
	if _, complaint := clone(t, repo.Bare); complaint != "" {
		t.Fatalf("an empty repository can be cloned, but: %s", complaint)
	}
	repo.Write("deploy/web.yaml", "one")
	repo.Symlink("deploy/link.yaml", "/etc/passwd")
	first := repo.Commit("one")
	repo.Push()
	repo.Write("deploy/web.yaml", "two")
	second := repo.Commit("two")
	repo.Tag("v1.0.0")
	repo.Push()
	dir, complaint := clone(t, repo.Bare)
	if complaint != "" || content(t, filepath.Join(dir, "deploy/web.yaml")) != "two" {
		t.Fatalf("after two pushes: %s", complaint)
	}
	if head, err := git(t.Context(), dir, nil, "rev-parse", "v1.0.0^{commit}"); err != nil || head != second {
		t.Errorf("the tag points to %s, %v, want %s", head, err, second)
	}
	repo.Reset(first)
	repo.ForcePush()
	repo.Branch("pr-42")
	repo.Remove("deploy")
	repo.Commit("nothing left")
	repo.Push()
	if dir, _ = clone(t, repo.Bare); content(t, filepath.Join(dir, "deploy/web.yaml")) != "one" {
		t.Error("a force-push did not take the branch back")
	}
	repo.DeleteBranch("pr-42")
	if branches, err := git(t.Context(), repo.Bare, nil, "branch", "--list"); err != nil || branches != "* main" {
		t.Errorf("branches %q, %v, want only main", branches, err)
	}
}

func TestHTTP(t *testing.T) {
	root := t.TempDir()
	repo := New(t, root, "platform")
	repo.Write("a.yaml", strings.Repeat("a", 100_000))
	repo.Commit("a")
	repo.Push()
	server := ServeHTTP(t, root, false)
	url := server.RepoURL("platform")
	check := func(name, url, want string) {
		t.Helper()
		_, complaint := clone(t, url)
		if want == "" && complaint != "" || !strings.Contains(complaint, want) {
			t.Errorf("%s: %q, want %q", name, complaint, want)
		}
	}
	check("good", url, "")
	if requests, _, out := server.Totals(); requests != 3 || out == 0 {
		t.Errorf("%d requests and %d bytes out counted, want 3 (capabilities, refs, pack) and some", requests, out)
	}
	check("no such repository", server.RepoURL("other"), "not found")
	check("work tree", server.URL()+"/.work/platform/.git", "not found")

	server.Login("u", "p")
	check("no login", url, "terminal prompts disabled")
	check("login", strings.Replace(url, "http://", "http://u:p@", 1), "")
	repo.PushTo(strings.Replace(url, "http://", "http://u:p@", 1))
	repo.Write("b.bin", noise(3<<20)) // above http.postBuffer: git sends it in chunks
	repo.Commit("push over http")
	repo.Push()
	server.Login("", "")

	server.Set(Fault{Status: 503})
	check("503", url, "503")
	server.Set(Fault{CutAfter: 500})
	check("cut", url, "fatal")
	server.Set(Fault{})
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	check("down", url, "Failed to connect")
	if err := server.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, complaint := clone(t, url)
	if complaint != "" || len(content(t, filepath.Join(dir, "b.bin"))) != 3<<20 {
		t.Errorf("up again: %q", complaint)
	}
}

// noise does not compress.
func noise(n int) string {
	text, state := make([]byte, n), uint64(time.Now().UnixNano())|1
	for i := range text {
		state = state*6364136223846793005 + 1442695040888963407
		text[i] = byte(state >> 56)
	}
	return string(text)
}

func TestHTTPS(t *testing.T) {
	root := t.TempDir()
	repo := New(t, root, "platform")
	repo.Commit("empty")
	repo.Push()
	server := ServeHTTP(t, root, true)
	if _, complaint := clone(t, server.RepoURL("platform")); !strings.Contains(complaint, "certificate") {
		t.Errorf("an unknown certificate: %q", complaint)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, complaint := clone(t, server.RepoURL("platform"), "GIT_SSL_CAINFO="+ca); complaint != "" {
		t.Errorf("the known certificate: %s", complaint)
	}
}

func TestSSH(t *testing.T) {
	testneed.Program(t, "ssh", "openssh-client")
	root := t.TempDir()
	repo := New(t, root, "platform")
	repo.Write("a.yaml", "a")
	repo.Commit("a")
	repo.Push()
	server := ServeSSH(t, root)
	dir := t.TempDir()
	with := func(knownHosts string) string {
		known, key := filepath.Join(dir, "known_hosts"), filepath.Join(dir, "key")
		for path, text := range map[string]string{known: knownHosts, key: string(server.PrivateKey)} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return "GIT_SSH_COMMAND=ssh -F none -i " + key + " -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + known
	}
	url := server.RepoURL("platform")
	if _, complaint := clone(t, url, with(server.KnownHosts)); complaint != "" {
		t.Fatalf("good: %s", complaint)
	}
	repo.Env = []string{with(server.KnownHosts)}
	repo.PushTo(url)
	repo.Commit("push over ssh")
	repo.Push()
	if _, complaint := clone(t, url, with(server.OtherKnownHosts)); !strings.Contains(complaint, "Host key verification failed") {
		t.Errorf("another host key: %q", complaint)
	}
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	if _, complaint := clone(t, url, with(server.KnownHosts)); !strings.Contains(complaint, "Connection refused") {
		t.Errorf("down: %q", complaint)
	}
	if err := server.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, complaint := clone(t, url, with(server.KnownHosts)); complaint != "" {
		t.Errorf("up again: %s", complaint)
	}
	if n := server.Connections(); n != 4 {
		t.Errorf("%d connections counted, want 4", n)
	}
}
