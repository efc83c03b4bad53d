package e2e

import (
	"regexp"
	"strconv"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

var visits = regexp.MustCompile(`visits (\d+)`)

// TestWordPressShapedProject: a web service that finds its database by name, whose data outlives a restart of the web
// service, and not the project.
func TestWordPressShapedProject(t *testing.T) {
	w := oneNode(t)
	name, host := w.name("wordpress"), w.engines[0]
	manifest := project(name, `
services:
- name: db
  image: `+testimage.KV+`
  env:
  - {name: KV_PASSWORD, value: ""}
  volumeMounts:
  - {name: db-data, mountPath: /data}
- name: app
  image: `+testimage.WebV1+`
  env:
  - {name: KV_ADDR, value: "db:6380"}
  - {name: GREETING, value: "Grüße: $HOME \"quoted\" # no comment"}
volumes:
- name: db-data
  type: Ephemeral
ingress:
- name: blog
  host: `+name+`
  target: {service: app, port: 8080}
  access: {scope: Internal}`)
	repo := w.repository("platform")
	repo.Write("wordpress.yaml", manifest)
	w.push(repo, "Start a blog")
	w.running(name)
	hosts := w.project(name).GetStatus().GetHosts()
	if len(hosts) != 1 {
		t.Fatalf("hosts %v, want one", hosts)
	}
	count := func() int {
		t.Helper()
		page := w.answers("n1", hosts[0], "/", 200, "Grüße: $HOME \"quoted\" # no comment", "web v1 on", "visits ")
		n, err := strconv.Atoi(visits.FindStringSubmatch(page)[1])
		w.must(err)
		return n
	}
	first := count()
	if second := count(); second != first+1 {
		t.Errorf("visit %d after %d", second, first)
	}
	before, started := w.containers(host, name), w.startTimes(host, name)
	if r := w.ctl("", "restart", name, "--service", "app"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	w.until(name, "has started app again", func(*carav1.Project) bool { return w.startTimes(host, name)["app"] != started["app"] })
	w.running(name)
	after := w.containers(host, name)
	if after["app"] != before["app"] || after["db"] != before["db"] {
		t.Errorf("the containers were %v and are %v, want a restart in place", before, after)
	}
	if now := w.startTimes(host, name); now["db"] != started["db"] {
		t.Errorf("the database was restarted too: %v, then %v", started, now)
	}
	if third := count(); third != first+2 {
		t.Errorf("visit %d after a restart of app, want %d", third, first+2)
	}
	held, err := w.Held(t.Context(), host, name)
	if err != nil || len(held.Volumes) != 1 || len(held.Networks) != 1 || len(held.Containers) != 2 {
		t.Errorf("%v, held:\n%s\nwant 2 containers, 1 network, 1 volume", err, held)
	}
	w.ctl("", "restart", name, "--service", "db")
	w.until(name, "has started db again", func(*carav1.Project) bool { return w.startTimes(host, name)["db"] != started["db"] })
	w.running(name)
	if fourth := count(); fourth != first+3 {
		t.Errorf("visit %d after a restart of db, want %d: the volume stays with the project", fourth, first+3)
	}
	repo.Remove("wordpress.yaml")
	repo.Write("other.yaml", w.web(w.name("other"), testimage.WebV1))
	w.push(repo, "Close the blog")
	w.gone(name)
}
