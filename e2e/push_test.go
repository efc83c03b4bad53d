package e2e

import (
	"testing"

	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestPush: a push runs, a change of one service replaces its container alone, a file that goes is pruned.
func TestPush(t *testing.T) {
	w := oneNode(t)
	repo := w.repository("platform")
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
