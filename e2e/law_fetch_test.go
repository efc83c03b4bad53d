package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// A row: repository unreachable, auth refused, ref missing, path missing, empty repository, directory unmounted.
func TestLawSourceCannotBeRead(t *testing.T) {
	w := law(t)
	tests := []struct {
		name, reason string
		message      string // URL stands for the repository's, HEAD for the commit that cannot be used
		spec         string
		spoil, mend  func(o *origin)
	}{
		{
			name: "repository-unreachable", reason: "Unreachable", message: "URL cannot be reached: connection refused",
			spoil: func(o *origin) { w.must(o.server.Down()) },
			mend:  func(o *origin) { w.must(o.server.Up(w.Context())) },
		}, {
			name: "auth-refused", reason: "AuthFailed",
			message: "URL refused access (401): name a Secret with `token`, or `username` and `password`, in spec.git.secretRef",
			spoil:   func(o *origin) { o.server.Login("ada", "secret") },
			mend:    func(o *origin) { o.server.Login("", "") },
		}, {
			name: "repository-missing", reason: "RepositoryNotFound",
			message: "URL does not exist, or the credentials may not see it (404); check spec.git.url and spec.git.secretRef",
			spoil:   func(o *origin) { w.must(os.Rename(o.Bare, o.Bare+".away")) },
			mend:    func(o *origin) { w.must(os.Rename(o.Bare+".away", o.Bare)) },
		}, {
			name: "ref-missing", reason: "RefNotFound", message: `branch "main" does not exist in URL; it has other`,
			spoil: func(o *origin) { o.git("branch", "-m", "main", "other") },
			mend:  func(o *origin) { o.git("branch", "-m", "other", "main") },
		}, {
			name: "path-missing", reason: "PathNotFound", spec: "path: deploy",
			message: `path "deploy" does not exist in URL at HEAD (refs/heads/main): there is no "deploy"; check spec.path`,
			spoil: func(o *origin) {
				o.Remove("deploy/a.yaml")
				o.Commit("Move away")
				o.Push()
			},
			mend: func(o *origin) {
				o.Write("deploy/a.yaml", declared("path-missing", "web:1"))
				o.Commit("Move back")
				o.Push()
			},
		}, {
			name: "empty-repository", reason: "EmptyRepository", message: "URL has no commit yet; push one",
			spoil: func(o *origin) {
				w.must(os.Rename(o.Bare, o.Bare+".away"))
				_, err := o.Git(w.Context(), "init", "--quiet", "--bare", "--initial-branch=main", o.Bare)
				w.must(err)
			},
			mend: func(o *origin) {
				w.must(os.RemoveAll(o.Bare))
				w.must(os.Rename(o.Bare+".away", o.Bare))
			},
		}, {
			name: "server-overloaded", reason: "Unreachable", message: "URL answered 503 Service Unavailable; it will be tried again",
			spoil: func(o *origin) { o.server.Set(testgit.Fault{Status: 503}) },
			mend:  func(o *origin) { o.server.Set(testgit.Fault{}) },
		},
	}
	origins := map[string]*origin{}
	for _, tt := range tests {
		file := "a.yaml"
		if tt.spec != "" {
			file = "deploy/a.yaml"
		}
		origins[tt.name] = w.origin(tt.name, map[string]string{file: declared(tt.name, "web:1")}, tt.spec)
		w.claim(tt.name, tt.name, "Applied")
	}
	for _, tt := range tests {
		w.sub(tt.name, func(w *testCluster) {
			o := origins[tt.name]
			good := o.head()
			tt.spoil(o)
			message := strings.NewReplacer("URL", o.server.RepoURL(o.Name), "HEAD", o.head()[:7]).Replace(tt.message)
			message += " (what was read at " + good[:12] + " stays in force)"
			w.suffers(o.Name, api.CondFetchFailed, tt.reason, message)
			w.event(api.KindSource, o.Name, "FetchFailed", message, // or that of a request that was under way
				strings.Replace(message, "connection refused", "EOF", 1), strings.Replace(message, "connection refused", "connection reset by peer", 1))
			w.driftIsHealed(tt.name)
			w.asks(tt.name, "web:1")
			tt.mend(o)
			w.well(o.Name, api.CondFetchFailed)
			w.event(api.KindSource, o.Name, "FetchRecovered", "the source can be read again")
			w.asks(tt.name, "web:1")
		})
	}
}

func (o *origin) git(args ...string) {
	o.w.Helper()
	_, err := o.Git(o.w.Context(), append([]string{"--git-dir", o.Bare}, args...)...)
	o.w.must(err)
}

// driftIsHealed puts another version in force for a while, and wants git's back.
func (w *testCluster) driftIsHealed(name string) {
	w.Helper()
	w.want(w.ctl(declared(name, "web:drift"), "apply", "-f", "-", "--override", "--reason", "test"), 0, "project/"+name+" configured\n", "")
	w.asks(name, "web:drift")
	w.want(w.ctl("", "override", "clear", name), 0, "project/"+name+" is no longer overridden: git decides again\n", "")
	w.asks(name, "web:1")
}

// The same row, over ssh.
func TestLawSourceCannotBeReadOverSSH(t *testing.T) {
	w := law(t)
	root := t.TempDir()
	server := testgit.ServeSSH(t, root)
	repo := testgit.New(t, root, "platform")
	w.secret("git", map[string]string{"ssh-privatekey": string(server.PrivateKey), "known_hosts": server.KnownHosts})
	repo.Write("a.yaml", declared("web", "web:1"))
	repo.Commit("Start")
	repo.Push()
	w.source("platform", "url: \""+server.RepoURL("platform")+"\", secretRef: git")
	w.claim("platform", "web", "Applied")
	head, err := repo.Head(t.Context())
	w.must(err)
	w.must(server.Down())
	url := strings.Replace(server.RepoURL("platform"), "root@", "", 1)
	w.suffers("platform", api.CondFetchFailed, "Unreachable", url+" cannot be reached: connection refused (what was read at "+head[:12]+" stays in force)")
	w.driftIsHealed("web")
	w.must(server.Up(t.Context()))
	w.well("platform", api.CondFetchFailed)

	w.secret("git", map[string]string{"ssh-privatekey": string(server.PrivateKey), "known_hosts": server.OtherKnownHosts})
	w.suffers("platform", api.CondFetchFailed, "HostKeyRefused", url+" shows another host key than `known_hosts` has: somebody may be in between; "+
		"if the key was changed on purpose, update the Secret (what was read at "+head[:12]+" stays in force)")
	w.driftIsHealed("web")
	w.secret("git", map[string]string{"ssh-privatekey": string(server.PrivateKey), "known_hosts": server.KnownHosts})
	w.well("platform", api.CondFetchFailed)

	repo.Write("a.yaml", declared("web", "web:2"))
	repo.Commit("Rewrite")
	_, err = repo.Git(t.Context(), "reset", "--soft", "HEAD~1")
	w.must(err)
	_, err = repo.Git(t.Context(), "commit", "--quiet", "--amend", "-m", "Another history")
	w.must(err)
	repo.ForcePush()
	w.asks("web", "web:2")
	w.stay("web")
}

// secret makes or replaces one.
func (w *testCluster) secret(name string, values map[string]string) {
	w.Helper()
	args := []string{"create", "secret", name}
	for key, value := range values {
		file := filepath.Join(w.TempDir(), key)
		w.write(file, value)
		args = append(args, "--from-file", key+"="+file)
	}
	if r := w.ctl("", args...); r.Code != 0 {
		w.ctl("", "delete", "secret", name)
		if r := w.ctl("", args...); r.Code != 0 {
			w.Fatalf("%+v", r)
		}
	}
}

// The same row, for a directory whose file system goes.
func TestLawDirectoryUnmounted(t *testing.T) {
	dir := t.TempDir()
	mount := func(args ...string) error { return exec.CommandContext(t.Context(), "mount", args...).Run() }
	if err := mount("-t", "tmpfs", "-o", "size=1m", "cara-test", dir); err != nil {
		testneed.Missing(t, "mounting a file system needs root: %v", err)
	}
	mounted := true
	umount := func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil { // without a context: also when the test is over
			t.Errorf("umount: %v\n%s", err, out)
		}
		mounted = false
	}
	t.Cleanup(func() {
		if mounted {
			umount()
		}
	})
	w := law(t)
	file := filepath.Join(dir, "a.yaml")
	w.write(file, declared("web", "web:1"))
	w.directory("local", dir, "allowEmpty: true")
	w.claim("local", "web", "Applied")
	w.polled("local")
	umount()
	w.untilSource("local", "cannot be read", func(s *carav1.Source) bool {
		c := condition(s.GetStatus().GetConditions(), api.CondFetchFailed)
		return c.GetReason() == "DirectoryUnavailable" &&
			strings.HasPrefix(c.GetMessage(), "directory "+dir+" is empty and its file system is gone: mount it again (what was read at ")
	})
	w.driftIsHealed("web")
	w.polled("local")
	w.stay("web")
	w.must(mount("-t", "tmpfs", "-o", "size=1m", "cara-test", dir))
	mounted = true
	w.write(file, declared("web", "web:2"))
	w.asks("web", "web:2")
	w.well("local", api.CondFetchFailed)

	w.must(os.Remove(file)) // what is emptied on purpose is empty
	w.gone("web")
}

// directory registers one as a source.
func (w *testCluster) directory(name, path string, more ...string) {
	w.Helper()
	w.apply("apiVersion: caravanserai/v1\nkind: Source\nmetadata:\n  name: " + name + "\nspec:\n" +
		"  dir: {path: " + path + "}\n  interval: 1s\n" + indent(strings.Join(more, "\n")))
}

// A restart of the server while the repository is unreachable clones nothing and loses nothing.
func TestLawRestartWhileUnreachable(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "web", "api"))
	w.claim("platform", "web", "Applied")
	w.claim("platform", "api", "Applied")
	before := w.untilSource("platform", "is Ready", func(s *carav1.Source) bool { return api.IsTrue(s.GetStatus().GetConditions(), api.CondReady) })
	w.quiet("platform")
	w.must(o.server.Down())
	w.crash()
	w.tamper("web", func(p *carav1.Project) { p.Spec.Services[0].Image = "evil:1" })
	w.start()
	w.event(api.KindProject, "web", "DriftCorrected", "put back what git says: spec.services[web].image \"evil:1\" -> \"web:1\"")
	w.asks("web", "web:1")
	w.suffers("platform", api.CondFetchFailed, "Unreachable", o.server.RepoURL("platform")+" cannot be reached: connection refused (what was read at "+
		o.head()[:12]+" stays in force)")
	w.stay("api", "web")

	o.server.Reset()
	w.must(o.server.Up(t.Context()))
	w.well("platform", api.CondFetchFailed)
	w.polled("platform")
	after := w.untilSource("platform", "is Ready", func(s *carav1.Source) bool { return api.IsTrue(s.GetStatus().GetConditions(), api.CondReady) })
	if a, b := before.GetStatus().GetSnapshot(), after.GetStatus().GetSnapshot(); a.GetSequence() != b.GetSequence() {
		t.Errorf("the snapshot was %v and is %v, though nothing was pushed", a, b)
	}
	posts := 0
	for _, r := range o.server.Log() {
		if r.BytesOut > 1000 {
			t.Errorf("%s %s answered %d bytes: more than a probe", r.Method, r.Path, r.BytesOut)
		}
		if r.Method == "POST" {
			posts++
		}
	}
	if posts == 0 {
		t.Error("not probed")
	}
	o.Remove("api.yaml")
	o.save("Drop the API")
	w.gone("api")
}
