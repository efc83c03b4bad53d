package git_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
)

// planted is a credential that must never appear.
const planted = "hunter2-planted"

// look opens, probes and lists.
func look(t *testing.T, opener *git.Git, spec *carav1.SourceSpec, secret map[string][]byte) (*sources.Tree, error) {
	t.Helper()
	d, err := opener.Open(spec, secret)
	if err != nil {
		return nil, err
	}
	t.Cleanup(d.Close)
	rev, err := d.Probe(t.Context(), 0)
	if err != nil {
		return nil, err
	}
	tree, err := d.Tree(t.Context(), rev)
	if err == nil && tree.Close != nil {
		t.Cleanup(tree.Close)
	}
	return tree, err
}

func TestErrors(t *testing.T) {
	root := t.TempDir()
	repo := testgit.New(t, root, "app")
	repo.Write("deploy/a.yaml", "x")
	first := repo.Commit("first")
	repo.Tag("v1.0.0")
	repo.Tag("nightly")
	repo.Push()
	repo.Write("deploy/a.yaml", "y")
	repo.Commit("second")
	repo.Push()
	testgit.New(t, root, "empty")
	if err := os.Mkdir(filepath.Join(root, "plain"), 0o755); err != nil {
		t.Fatal(err)
	}
	http := testgit.ServeHTTP(t, root, false)
	https := testgit.ServeHTTP(t, root, true)
	login := testgit.ServeHTTP(t, root, false)
	login.Login("ada", "secret")
	ssh := testgit.ServeSSH(t, root)
	http.Set(testgit.Fault{})
	keys := map[string][]byte{"ssh-privatekey": ssh.PrivateKey, "known_hosts": []byte(ssh.KnownHosts)}
	other := testgit.ServeSSH(t, root)
	basic := map[string][]byte{"username": []byte("ada"), "password": []byte(planted)}

	tests := []struct {
		name   string
		url    string
		ref    *carav1.GitRef
		path   string
		secret map[string][]byte
		reason api.Reason
		human  bool
		want   string // URL stands for the address
	}{
		{"nobody listens", "http://127.0.0.1:1/app.git", nil, "", basic, api.ReasonUnreachable, false, `URL cannot be reached: connection refused`},
		{"no such host", "http://nowhere.invalid/app.git", nil, "", basic, api.ReasonUnreachable, false, ""},
		{"no such repository", http.RepoURL("other"), nil, "", basic, api.ReasonRepositoryNotFound, true, `URL does not exist, or the credentials may not see it (404); check spec.git.url and spec.git.secretRef`},
		{"login wanted", login.RepoURL("app"), nil, "", nil, api.ReasonAuthFailed, true, "URL refused access (401): name a Secret with `token`, or `username` and `password`, in spec.git.secretRef"},
		{"login refused", login.RepoURL("app"), nil, "", basic, api.ReasonAuthFailed, true, `URL refused access (401): its credentials (spec.git.secretRef) are not accepted or may not read it`},
		{"unknown authority", https.RepoURL("app"), nil, "", basic, api.ReasonAuthFailed, true, "URL has a certificate of an unknown authority; add `ca.crt` to the Secret that spec.git.secretRef names"},
		{"empty repository", http.RepoURL("empty"), &carav1.GitRef{Branch: "main"}, "", nil, api.ReasonEmptyRepository, true, `URL has no commit yet; push one`},
		{"empty local repository", filepath.Join(root, "empty.git"), nil, "", nil, api.ReasonEmptyRepository, true, `URL has no commit yet; push one`},
		{"branch missing", http.RepoURL("app"), &carav1.GitRef{Branch: "prod"}, "", nil, api.ReasonRefNotFound, true, `branch "prod" does not exist in URL; it has main`},
		{"tag missing", http.RepoURL("app"), &carav1.GitRef{Tag: "v9"}, "", nil, api.ReasonRefNotFound, true, `tag "v9" does not exist in URL; it has nightly, v1.0.0`},
		{"no version in range", http.RepoURL("app"), &carav1.GitRef{Semver: ">=2"}, "", nil, api.ReasonRefNotFound, true, `no tag of URL is a version (X.Y.Z or vX.Y.Z) within ">=2"; it has nightly, v1.0.0`},
		{"commit missing", http.RepoURL("app"), &carav1.GitRef{Commit: strings.Repeat("a", 40)}, "", nil, api.ReasonRefNotFound, true, `URL has no such commit, or gives none out by hash; follow a branch or tag, or check spec.git.ref.commit`},
		{"commit missing locally", filepath.Join(root, "app.git"), &carav1.GitRef{Commit: strings.Repeat("a", 40)}, "", nil, api.ReasonRefNotFound, true, `URL has no commit ` + strings.Repeat("a", 40) + `; check spec.git.ref`},
		{"path missing", http.RepoURL("app"), &carav1.GitRef{Commit: first}, "deploy/prod", nil, api.ReasonPathNotFound, true, `path "deploy/prod" does not exist in URL at ` + first[:7] + `: there is no "deploy/prod"; check spec.path`},
		{"path is a file", http.RepoURL("app"), &carav1.GitRef{Tag: "v1.0.0"}, "deploy/a.yaml", nil, api.ReasonPathNotFound, true, `path "deploy/a.yaml" is not a folder in URL at ` + first[:7] + ` (refs/tags/v1.0.0): "deploy/a.yaml" is a file, link or submodule; check spec.path`},
		{"path leaves", http.RepoURL("app"), nil, "../etc", nil, api.ReasonInvalidSpec, true, `spec.path "../etc" leaves the source; name a folder inside it`},
		{"password in the url", "https://ada:" + planted + "@host/app.git", nil, "", nil, api.ReasonInvalidSpec, true, `spec.git.url holds a password, which every reader of the source would see; put it in a Secret and name it in spec.git.secretRef`},
		{"not a url", "https://ada:" + planted + "@host:x/%zz", nil, "", nil, api.ReasonInvalidSpec, true, `spec.git.url is not a valid URL; see https://host/team/repo.git`},
		{"unknown scheme", "ext::sh -c evil://x", nil, "", nil, api.ReasonInvalidSpec, true, ""},
		{"not a local repository", filepath.Join(root, "plain"), nil, "", nil, api.ReasonRepositoryNotFound, true, `URL is not a git repository; check spec.git.url`},
		{"ssh without known_hosts", ssh.RepoURL("app"), nil, "", map[string][]byte{"ssh-privatekey": ssh.PrivateKey}, api.ReasonHostKeyRefused, true, "ssh needs the server's host key: add `known_hosts` (from `ssh-keyscan HOST`, checked) to the Secret that spec.git.secretRef names"},
		{"ssh with another host key", ssh.RepoURL("app"), nil, "", map[string][]byte{"ssh-privatekey": ssh.PrivateKey, "known_hosts": []byte(ssh.OtherKnownHosts)}, api.ReasonHostKeyRefused, true, "URL shows another host key than `known_hosts` has: somebody may be in between; if the key was changed on purpose, update the Secret"},
		{"ssh with unknown host", ssh.RepoURL("app"), nil, "", map[string][]byte{"ssh-privatekey": ssh.PrivateKey, "known_hosts": []byte(other.KnownHosts)}, api.ReasonHostKeyRefused, true, "URL is not in the Secret's `known_hosts`; add its line (from `ssh-keyscan`, checked)"},
		{"ssh with a foreign key", ssh.RepoURL("app"), nil, "", map[string][]byte{"ssh-privatekey": other.PrivateKey, "known_hosts": []byte(ssh.KnownHosts)}, api.ReasonAuthFailed, true, ""},
		{"ssh with a broken key", ssh.RepoURL("app"), nil, "", map[string][]byte{"ssh-privatekey": []byte(planted), "known_hosts": []byte(ssh.KnownHosts)}, api.ReasonAuthFailed, true, "the Secret's `ssh-privatekey` cannot be read (or its passphrase is wrong): it must be an OpenSSH or PEM private key"},
		{"ssh without such a repository", ssh.RepoURL("other"), nil, "", keys, api.ReasonRepositoryNotFound, true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := &carav1.SourceSpec{Git: &carav1.GitSource{Url: tt.url, Ref: tt.ref, SecretRef: "s", Insecure: true}, Path: tt.path}
			_, err := look(t, git.New(config()), spec, tt.secret)
			var e *sources.Error
			if !errors.As(err, &e) {
				t.Fatalf("err = %v", err)
			}
			if strings.Contains(e.Message, planted) {
				t.Errorf("a credential in %q", e.Message)
			}
			got := strings.ReplaceAll(e.Message, strings.Replace(tt.url, "ssh://root@", "ssh://", 1), "URL")
			if tt.want != "" && got != tt.want {
				t.Errorf("message\n got: %s\nwant: %s", got, tt.want)
			}
			if e.Reason != tt.reason || e.Human != tt.human {
				t.Errorf("reason %s, human %v: %s", e.Reason, e.Human, e.Message)
			}
		})
	}
}

func TestServerFaults(t *testing.T) {
	root := t.TempDir()
	repo := testgit.New(t, root, "app")
	repo.Write("a.yaml", strings.Repeat("x", 1000))
	repo.Commit("first")
	repo.Push()
	server := testgit.ServeHTTP(t, root, false)
	tests := []struct {
		name   string
		fault  testgit.Fault
		reason api.Reason
		human  bool
		want   string
	}{
		{"503", testgit.Fault{Status: 503}, api.ReasonUnreachable, false, "URL answered 503 Service Unavailable; it will be tried again"},
		{"403", testgit.Fault{Status: 403}, api.ReasonAuthFailed, true, "URL refused access (403): its credentials (spec.git.secretRef) are not accepted or may not read it"},
		{"redirect to another host", testgit.Fault{Status: 302, Location: "http://evil.example.com/app.git/info/refs"}, api.ReasonAddressRefused, true, "URL redirects to another host (http://evil.example.com), which is not followed; put the new address in spec.git.url"},
		{"hangs", testgit.Fault{Hang: true}, api.ReasonUnreachable, false, ""},
		{"breaks off", testgit.Fault{CutAfter: 100}, api.ReasonUnreachable, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server.Set(tt.fault)
			defer server.Set(testgit.Fault{})
			cfg := config()
			if tt.fault.Hang { // the others answer, however late
				cfg.IdleTimeout = 300 * time.Millisecond
			}
			secret := map[string][]byte{"token": []byte(planted)}
			_, err := look(t, git.New(cfg), &carav1.SourceSpec{Git: &carav1.GitSource{Url: server.RepoURL("app"), SecretRef: "s", Insecure: true}}, secret)
			var e *sources.Error
			if !errors.As(err, &e) {
				t.Fatalf("err = %v", err)
			}
			got := strings.ReplaceAll(e.Message, server.RepoURL("app"), "URL")
			if tt.want != "" && got != tt.want || e.Reason != tt.reason || e.Human != tt.human || strings.Contains(got, planted) {
				t.Errorf("reason %s, human %v\n got: %s\nwant: %s", e.Reason, e.Human, got, tt.want)
			}
		})
	}
}

func TestPrivateAddressesAreRefused(t *testing.T) {
	root := t.TempDir()
	testgit.New(t, root, "app")
	server := testgit.ServeHTTP(t, root, false)
	ssh := testgit.ServeSSH(t, root)
	secret := map[string][]byte{"ssh-privatekey": ssh.PrivateKey, "known_hosts": []byte(ssh.KnownHosts)}
	for _, url := range []string{
		server.RepoURL("app"), ssh.RepoURL("app"),
		strings.Replace(server.RepoURL("app"), "127.0.0.1", "localhost", 1),
		strings.Replace(server.RepoURL("app"), "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		"http://169.254.169.254/latest/app.git", "http://10.1.2.3/app.git", "http://[fd00::1]/app.git",
		"http://100.100.100.200/app.git", "http://0.0.0.0/app.git",
	} {
		_, err := look(t, git.New(git.Config{}), &carav1.SourceSpec{Git: &carav1.GitSource{Url: url}}, secret)
		var e *sources.Error
		if !errors.As(err, &e) || e.Reason != api.ReasonAddressRefused || !strings.Contains(e.Message, "--allow-source-cidr") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if n, _, _ := server.Totals(); n != 0 {
		t.Errorf("%d requests reached a refused address", n)
	}
}
