package e2e

import (
	"os"
	"path/filepath"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestPushOverHTTP and TestPushOverSSH tell the same story over two transports.
func TestPushOverHTTP(t *testing.T) {
	w := oneNode(t)
	w.pushStory(w.repository("platform"))
}

func TestPushOverSSH(t *testing.T) {
	w := oneNode(t)
	root := t.TempDir()
	server := testgit.ServeSSH(t, root)
	repo := testgit.New(t, root, "platform")
	key, hosts := filepath.Join(w.Dir, "key"), filepath.Join(w.Dir, "known_hosts")
	w.write(key, string(server.PrivateKey))
	trust := func(line, done string) {
		t.Helper()
		w.write(hosts, line)
		w.want(w.ctl("", "create", "secret", "git", "--from-file", "ssh-privatekey="+key, "--from-file", "known_hosts="+hosts),
			0, "secret/git "+done+"\n", "")
	}
	trust(server.OtherKnownHosts, "created")
	w.source("platform", "url: \""+server.RepoURL("platform")+"\", secretRef: git")
	s := w.untilSource("platform", "refuses a host key that it does not know", func(s *carav1.Source) bool {
		return condition(s.GetStatus().GetConditions(), "FetchFailed").GetStatus() == "True"
	})
	w.says("FetchFailed", condition(s.GetStatus().GetConditions(), "FetchFailed").GetMessage(), "host key", "known_hosts")
	trust(server.KnownHosts, "configured")
	w.pushStory(repo)
}

// TestGitServerDownThenBack: what was read stays in force, what drifts is put back, and nothing is pruned.
func TestGitServerDownThenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	root := t.TempDir()
	server := testgit.ServeHTTP(t, root, false)
	repo := testgit.New(t, root, "platform")
	w.source("platform", "url: "+server.RepoURL("platform"))
	repo.Write("a.yaml", w.web("a", testimage.WebV1))
	repo.Write("b.yaml", w.web("b", testimage.WebV1))
	revision := w.push(repo, "Two projects")
	fetchFailed := func(status string) func(*carav1.Source) bool {
		return func(s *carav1.Source) bool {
			return condition(s.GetStatus().GetConditions(), "FetchFailed").GetStatus() == status
		}
	}
	for name, outage := range map[string]func(){
		"down":              func() { w.must(server.Down()) },
		"internal error":    func() { server.Set(testgit.Fault{Status: 500}) },
		"demands a login":   func() { server.Login("ada", "secret") },
		"repository is out": func() { w.must(os.Rename(repo.Bare, repo.Bare+".away")) },
	} {
		outage()
		s := w.untilSource("platform", "cannot be read: "+name, fetchFailed("True"))
		w.says(name, condition(s.GetStatus().GetConditions(), "FetchFailed").GetMessage(), server.RepoURL("platform"), revision[:7], "stays in force")
		w.want(w.ctl("", "get", "projects", "-o", "name"), 0, "project/a\nproject/b\n", "")
		w.must(server.Up(t.Context()))
		server.Set(testgit.Fault{})
		server.Login("", "")
		if name == "repository is out" {
			w.must(os.Rename(repo.Bare+".away", repo.Bare))
		}
		w.untilSource("platform", "can be read again: "+name, fetchFailed("False"))
	}
	repo.Remove("b.yaml")
	w.push(repo, "One project")
	w.gone("b")
}

// pushStory: a push runs, a change of one service replaces its container alone, a file that goes is pruned.
func (w *testCluster) pushStory(repo *testgit.TestRepo) {
	name, other := w.name("shop"), w.name("blog")
	shop := func(image string) string {
		return project(name, `
services:
- name: db
  image: `+testimage.KV+`
- name: web
  image: `+image+`
  env:
  - {name: KV_ADDR, value: "db:6380"}
ingress:
- name: web
  host: `+name+`.test
  target: {service: web, port: 8080}`)
	}
	repo.Write("apps/shop.yaml", shop(testimage.WebV1))
	repo.Write("apps/blog.yaml", w.web(other, testimage.WebV1))
	repo.Write("README.md", "nothing that Cara reads")
	revision := w.push(repo, "Open the shop")
	w.running(name, other)
	w.answers("n1", name+".test", "/", 200, "web v1 on", "visits 1")
	if origin := w.project(name).GetMetadata().GetOrigin(); origin.GetRevision() != revision || origin.GetFile() != "apps/shop.yaml" {
		w.Errorf("origin %v, want apps/shop.yaml at %s", origin, revision)
	}

	host := w.engines[0]
	before, blog := w.containers(host, name), w.containers(host, other)
	repo.Write("apps/shop.yaml", shop(testimage.WebV2))
	w.push(repo, "Show the new shop window")
	w.running(name)
	w.answers("n1", name+".test", "/", 200, "web v2 on", "visits")
	after := w.containers(host, name)
	if after["db"] != before["db"] || after["web"] == before["web"] {
		w.Errorf("containers before %v, after a change of web alone %v", before, after)
	}
	if now := w.containers(host, other); now["web"] != blog["web"] {
		w.Errorf("the blog's container was %s and is %s", blog["web"], now["web"])
	}

	repo.Remove("apps/blog.yaml")
	w.push(repo, "Close the blog")
	w.gone(other)
	w.answers("n1", other+".test", "/", 404, other+".test")
	w.running(name)
	if now := w.containers(host, name); now["web"] != after["web"] || now["db"] != after["db"] {
		w.Errorf("the shop's containers were %v and are %v", after, now)
	}
	if r := w.ctl("", "get", "events"); r.Code != 0 {
		w.Errorf("%+v", r)
	} else {
		w.says("caractrl get events", r.Stdout, name, "its manifest left the source")
	}
}
