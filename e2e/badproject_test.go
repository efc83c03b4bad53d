package e2e

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// TestImageMissing: a registry that says no is final, and says which image.
func TestImageMissing(t *testing.T) {
	w := oneNode(t)
	registry := testregistry.New(t)
	name := w.name("missing")
	ref := registry.Ref("team/nothing:v9")
	w.apply(w.web(name, ref))
	w.failed(name, "ImagePullFailed", ref)
	w.says("the list", w.ctl("", "get", "projects").Stdout, "Failed", "ImagePullFailed")
	w.says("describe", w.ctl("", "describe", "project", name).Stdout, ref)

	r := w.ctl(w.web(name, ref), "apply", "-f", "-", "--wait")
	if r.Code != 3 {
		t.Errorf("apply --wait of a project that fails: %+v, want exit code 3", r)
	}
	registry.Push(t, testimage.WebV1, "team/nothing:v9")
	if r := w.ctl("", "retry", name); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	w.running(name)
}

// TestRegistryDownThenBack is no failure: the project waits, says so, and runs in the end.
func TestRegistryDownThenBack(t *testing.T) {
	w := oneNode(t)
	registry := testregistry.New(t)
	ref := registry.PushPadded(t, testimage.WebV1, "team/web:"+w.id, 1<<20)
	restore := registry.Outage(t)
	name := w.name("patient")
	w.apply(w.web(name, ref))
	p := w.until(name, "says that the registry is unreachable", func(p *carav1.Project) bool {
		return condition(p.GetStatus().GetConditions(), api.CondImagesReady).GetReason() == "PullBackoff"
	})
	w.says("ImagesReady", condition(p.GetStatus().GetConditions(), api.CondImagesReady).GetMessage(), ref)
	if p.GetStatus().GetPhase() != api.PhaseScheduled {
		t.Errorf("phase %s while the registry is away, want Scheduled", p.GetStatus().GetPhase())
	}
	registry.Set(testregistry.Fault{Status: 503})
	restore()
	w.until(name, "says 503", func(p *carav1.Project) bool {
		c := condition(p.GetStatus().GetConditions(), api.CondImagesReady)
		return c.GetStatus() == api.StatusFalse && p.GetStatus().GetPhase() == api.PhaseScheduled
	})
	registry.Set(testregistry.Fault{})
	w.running(name)
	if digest := w.project(name).GetStatus().GetServices()[0].GetImageDigest(); digest == "" {
		t.Error("no digest is recorded")
	}
}

// TestContainerThatExitsAtOnce fails after five restarts, with its exit code and its last words.
func TestContainerThatExitsAtOnce(t *testing.T) {
	w := oneNode(t, "--restart-delay", "200ms")
	name := w.name("crasher")
	w.apply(project(name, `
services:
- name: job
  image: `+testimage.Job+`
  args: ["-lines", "3", "-exit", "7"]`))
	w.failed(name, "CrashLoop", "job", "7", "5 restarts", "job v1 line 3 of 3")
	p := w.project(name)
	if s := p.GetStatus().GetServices()[0]; s.GetRestarts() != 5 || s.GetExitCode() != 7 || s.GetState() != "Failed" {
		t.Errorf("service %v, want 5 restarts, exit code 7, Failed", s)
	}
	w.says("logs of a Failed project", w.ctl("", "logs", name).Stdout, "job v1 line 3 of 3", "job v1: exit 7")
	w.says("describe", w.ctl("", "describe", "project", name).Stdout, "CrashLoop", "job v1 line 3 of 3")

	w.want(w.ctl(project(name, `
services:
- name: job
  image: `+testimage.Job+`
  restartPolicy: Never`), "apply", "-f", "-"), 0, "project/"+name+" configured\n", "")
	w.until(name, "runs and its service has completed", func(p *carav1.Project) bool {
		return testcluster.Runs(p) && p.GetStatus().GetServices()[0].GetState() == "Completed"
	})
}

// TestHealthCheckThatNeverPasses keeps a project from Running, and says what the check saw.
func TestHealthCheckThatNeverPasses(t *testing.T) {
	w := oneNode(t)
	name := w.name("ill")
	w.apply(project(name, `
services:
- name: web
  image: `+testimage.WebV1+`
  env: [{name: UNHEALTHY, value: "1"}]
  healthcheck: {http: {path: /healthz, port: 8080}, interval: 500ms, timeout: 1s, retries: 3}`))
	w.failed(name, "HealthCheckFailed", "web", "503")
}

// TestServerRefuses are manifests that say nonsense: the caller is told at once, field by field, and nothing is stored.
func TestServerRefuses(t *testing.T) {
	w := oneNode(t)
	one := "services:\n- name: web\n  image: " + testimage.WebV1
	long := "a123456789012345678901234567890123456789012345678901234567890123" // 64 characters
	tests := []struct {
		name, project, spec string
		words               []string
	}{
		{"image reference invalid", "x", "services:\n- name: web\n  image: \"UPPER/case:??\"", []string{"spec.services[0].image", "UPPER/case:??"}},
		{"volume mount not declared", "x", one + "\n  volumeMounts: [{name: data, mountPath: /data}]", []string{"spec.services[0].volumeMounts[0].name", `"data"`, "spec.volumes"}},
		{"service name twice", "x", one + "\n- name: web\n  image: " + testimage.KV, []string{"spec.services[1].name", `"web"`, "twice"}},
		{"ingress target missing", "x", one + "\ningress: [{name: i, host: x.test, target: {service: app, port: 80}}]", []string{"spec.ingress[0].target.service", `"app"`}},
		{"name too long", long, one, []string{"metadata.name", "63"}},
		{"unknown field", "x", "services:\n- name: web\n  imag: " + testimage.WebV1, []string{"spec.services[0].imag", `did you mean "image"`}},
		{"no services", "x", "services: []", []string{"spec.services"}},
		{"privileged", "x", one + "\n  privileged: true", []string{"spec.services[0].privileged"}},
		{"host path", "x", one + "\nvolumes: [{name: v, type: HostPath}]", []string{"spec.volumes[0].type"}},
		{"expired already", "x", one + "\nexpireAt: yesterday", []string{"spec.expireAt", "yesterday"}},
	}
	for _, tt := range tests {
		w.sub(tt.name, func(w *testCluster) {
			r := w.ctl(project(tt.project, tt.spec), "apply", "-f", "-")
			if r.Code != 1 || r.Stdout != "" {
				w.Errorf("exit code %d, stdout %q, want 1 and nothing", r.Code, r.Stdout)
			}
			w.says("caractrl", r.Stderr, tt.words...)
		})
	}
	w.want(w.ctl("", "get", "projects"), 0, "", "no projects found\n")

	first, second := w.name("first"), w.name("second")
	ingress := "\ningress: [{name: i, host: taken.test, target: {service: web, port: 8080}}]"
	w.apply(project(first, one+ingress))
	r := w.ctl(project(second, one+ingress), "apply", "-f", "-")
	if r.Code != 1 {
		t.Errorf("a host that is taken: %+v", r)
	}
	w.says("caractrl", r.Stderr, "taken.test", first)
}
