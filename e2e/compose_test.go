package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestComposeSource: directories with Compose files are projects, with their files, variables and Secrets; a changed file changes
// its project alone, and an error has the line of the Compose file.
func TestComposeSource(t *testing.T) {
	w := oneNode(t)
	shop, blog := w.name("shop"), w.name("blog")
	const planted = "planted-5e2b"
	w.secret("stack-"+w.id, map[string]string{"password": planted})
	o := w.origin("stacks", map[string]string{
		"shop/compose.yaml": "name: " + shop + `
services:
  web:
    image: ${IMAGE}
    restart: always
    depends_on: [kv]
    ports: ["8080:8080"]
    environment:
      GREETING: "from compose: ${GREETING:-hello}"
      DB: u:${PW}@kv
    env_file: [web.env]
    volumes: ["./web.conf:/etc/web.conf:ro", "data:/data"]
  kv:
    image: ` + testimage.KV + `
    restart: always
volumes: {data: {}}
`,
		"shop/web.env": "FROM_FILE=1\n", "shop/web.conf": "one\n",
		"shop/.env":           "GREETING=hi from .env\n",
		"blog/compose.yml":    "name: " + blog + "\nservices:\n  web:\n    image: ${IMAGE}\n    restart: always\n",
		"broken/compose.yaml": "services:\n  web:\n    image: nginx\n    restart: always\n    privileged: true\n",
	}, "format: Compose", "allow: {secrets: ['stack-*']}", "vars:", "- {name: IMAGE, value: '"+testimage.WebV1+"'}",
		"- {name: PW, secretKeyRef: {name: stack-"+w.id+", key: password}}")
	w.running(shop)
	w.running(blog)
	if hosts := w.project(shop).GetStatus().GetHosts(); len(hosts) != 1 {
		t.Errorf("hosts %v", hosts)
	} else {
		w.answers("n1", hosts[0], "/", 200, "from compose: hi from .env")
	}
	if env := w.env(shop, "web"); !slices.Contains(env, "DB=u:"+planted+"@kv") || !slices.Contains(env, "FROM_FILE=1") {
		t.Errorf("environment %v", env)
	}
	if got := w.inContainer(shop, "web", "/etc/web.conf"); got != "0444 one\n" {
		t.Errorf("file %q", got)
	}
	says := w.ctl("", "describe", "source", "stacks").Stdout
	if !strings.Contains(says, "broken/compose.yaml:5:5") || !strings.Contains(says, "containers have no access to the machine") {
		t.Errorf("describe says:\n%s", says)
	}
	w.nowhere(planted)

	web, kv, other := w.containers(w.engines[0], shop)["web"], w.containers(w.engines[0], shop)["kv"], w.containers(w.engines[0], blog)["web"]
	o.Write("shop/web.conf", "two\n")
	o.save("Change a file")
	w.until(shop, "runs with the changed file", func(p *carav1.Project) bool {
		return w.containers(w.engines[0], shop)["web"] != web && api.IsTrue(p.GetStatus().GetConditions(), api.CondReady)
	})
	if got := w.inContainer(shop, "web", "/etc/web.conf"); got != "0444 two\n" {
		t.Errorf("file %q", got)
	}
	if w.containers(w.engines[0], shop)["kv"] != kv || w.containers(w.engines[0], blog)["web"] != other {
		t.Error("more than the user of the file was recreated")
	}
	o.Remove("blog/compose.yml")
	o.Remove("broken/compose.yaml")
	o.save("Close the blog")
	w.gone(blog)
}
