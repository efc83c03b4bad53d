package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// env returns the environment of a container.
func (w *testCluster) env(project, service string) []string {
	w.Helper()
	docker, err := testdocker.Client(w.engines[0])
	w.must(err)
	defer docker.Close()
	c, err := docker.ContainerInspect(w.Context(), w.containers(w.engines[0], project)[service])
	w.must(err)
	return c.Config.Env
}

// TestVariablesOfASource: a changed variable changes exactly what uses it, the value of a Secret is only in the container, and
// a variable that is not defined is an error where it is used.
func TestVariablesOfASource(t *testing.T) {
	w := oneNode(t)
	const first, second = "planted-7f3a$${x}", "planted-99c1"
	plain, secret, none := w.name("plain"), w.name("secret"), w.name("none")
	w.secret("vars-"+w.id, map[string]string{"password": first})
	vars := func(tag string) []string {
		return []string{
			"allow: {secrets: ['vars-*']}", "vars:", "- {name: TAG, value: '" + tag + "'}", "- {name: IMAGE, value: '" + testimage.WebV1 + "'}",
			"- {name: PW, secretKeyRef: {name: vars-" + w.id + ", key: password}}",
		}
	}
	service := "\nservices:\n- name: web\n  image: ${IMAGE}\n"
	o := w.origin("platform", map[string]string{
		"plain.yaml":  project(plain, service+"  env: [{name: GREETING, value: 'tag ${TAG} $HOME'}]\n"),
		"secret.yaml": project(secret, service+"  env: [{name: DB, value: 'u:${PW}@${TAG:-x}'}]\n  files: [{path: /etc/pw, content: \"pw=${PW}\\n\"}]\n"),
		"none.yaml":   project(none, service),
	}, vars("one")...)
	for _, name := range []string{plain, secret, none} {
		w.running(name)
	}
	if env := w.env(plain, "web"); !slices.Contains(env, "GREETING=tag one $HOME") {
		t.Errorf("environment %v", env)
	}
	if env, file := w.env(secret, "web"), w.inContainer(secret, "web", "/etc/pw"); !slices.Contains(env, "DB=u:"+first+"@one") || file != "0444 pw="+first+"\n" {
		t.Errorf("environment %v, file %q", env, file)
	}
	w.nowhere("planted-7f3a")
	if yaml := w.ctl("", "get", "project", secret, "-o", "yaml").Stdout; !strings.Contains(yaml, "u:${PW}@one") {
		t.Errorf("the project shows\n%s", yaml)
	}

	before := map[string]string{}
	for _, name := range []string{plain, secret, none} {
		before[name] = w.containers(w.engines[0], name)["web"]
	}
	recreated := func(name string) {
		t.Helper()
		w.until(name, "is recreated", func(p *carav1.Project) bool {
			return w.containers(w.engines[0], name)["web"] != before[name] && api.IsTrue(p.GetStatus().GetConditions(), api.CondReady)
		})
		before[name] = w.containers(w.engines[0], name)["web"]
	}
	w.secret("vars-"+w.id, map[string]string{"password": second})
	recreated(secret)
	if env := w.env(secret, "web"); !slices.Contains(env, "DB=u:"+second+"@one") {
		t.Errorf("environment %v after the Secret changed", env)
	}
	w.source("platform", "url: "+o.server.RepoURL("platform"), vars("two")...)
	recreated(plain)
	recreated(secret)
	if now := w.containers(w.engines[0], none)["web"]; now != before[none] {
		t.Error("a project without the variable was recreated")
	}

	o.Write("none.yaml", project(none, service+"  env:\n  - name: A\n    value: x ${NOPE}\n"))
	o.Write("plain.yaml", project(plain, service+"  command: ['${PW}']\n"))
	o.save("Use what is not there")
	says := w.ctl("", "describe", "source", "platform").Stdout
	for _, want := range []string{
		"the variable NOPE is not defined", "none.yaml:11:16: ", "the variable PW is from a Secret", "TAG, IMAGE, PW (Secret vars-" + w.id + ", key password)",
	} {
		if !strings.Contains(says, want) {
			t.Errorf("describe does not say %q:\n%s", want, says)
		}
	}
	w.nowhere("planted-")
	if now := w.containers(w.engines[0], none)["web"]; now != before[none] {
		t.Error("a project with an error did not stay as it was")
	}
}
