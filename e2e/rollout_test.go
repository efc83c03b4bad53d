package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// rolling is a project of one web service that is replaced start-first and checked often. more are lines of its service.
func rolling(name, image string, more ...string) string {
	return project(name, `
services:
- name: web
  image: `+image+`
  update: {order: start-first}
  healthcheck: {http: {path: /healthz, port: 8080}, interval: 200ms, timeout: 5s, retries: 5}
`+indent(strings.Join(more, "\n"))+`
ingress:
- name: web
  host: `+name+`.test
  target: {service: web, port: 8080}`)
}

// notUpdated waits until an update came to nothing, and wants these words in the message.
func (w *testCluster) notUpdated(name string, words ...string) *carav1.Project {
	w.Helper()
	p := w.until(name, "is not updated", func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return c.GetReason() == api.ReasonUpdateFailed && c.GetObservedGeneration() == p.GetMetadata().GetGeneration()
	})
	if p.GetStatus().GetPhase() != api.PhaseScheduled {
		w.Errorf("project %s is %s after an update that failed", name, p.GetStatus().GetPhase())
	}
	w.says("project "+name, api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage(), words...)
	return p
}

// serves is the container that the server knows to serve.
func serves(p *carav1.Project) string { return p.GetStatus().GetServices()[0].GetContainerId() }

// TestStartFirst: under load, not one request fails while a project is updated again and again, nor while its updates
// fail in every way; and what other projects have open stays open.
func TestStartFirst(t *testing.T) {
	w := oneNode(t, "--restart-delay", "100ms")
	shop, steady, brief := w.name("shop"), w.name("steady"), w.name("brief")
	w.apply(rolling(shop, testimage.WebV1) + "---\n" + w.web(steady, testimage.WebV1) + "---\n" + w.web(brief, testimage.WebV1))
	w.running(shop, steady, brief)
	w.answers("n1", shop+".test", "/", 200, "web v1")
	w.answers("n1", steady+".test", "/", 200, "web v1")
	socket := w.dial("n1", steady+".test", "/ws", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n")
	w.must(socket.echoes("before"))
	events := w.dial("n1", steady+".test", "/sse?ms=200", "")
	w.must(events.event(1))
	clients := w.load("n1", shop+".test")

	updates := often(8, 2)
	w.sub("updates", func(w *testCluster) {
		for n := range updates {
			image, version := testimage.WebV2, "web v2"
			if n%2 == 1 {
				image, version = testimage.WebV1, "web v1"
			}
			before := serves(w.project(shop))
			w.apply(rolling(shop, image, "env:", "- {name: START_DELAY, value: 300ms}", fmt.Sprintf("- {name: GREETING, value: update %d}", n)))
			w.running(shop)
			if serves(w.project(shop)) == before {
				t.Error("the container is the same")
			}
			w.answers("n1", shop+".test", "/", 200, version, fmt.Sprint("update ", n))
			clients.none(w)
		}
	})

	w.sub("updates that fail", func(w *testCluster) {
		before := serves(w.project(shop))
		for how, bad := range map[string]struct {
			manifest string
			words    []string
		}{
			"never healthy": {
				rolling(shop, testimage.WebV2, "env:", "- {name: UNHEALTHY, value: \"1\"}"),
				[]string{"the update of service web failed, and the previous version keeps serving", "never passed", "503", "web v2 listens on"},
			},
			"crash loop": {
				rolling(shop, testimage.WebV2, "env:", "- {name: START_DELAY, value: nonsense}"),
				[]string{"the update of service web failed", "after 5 restarts", "read START_DELAY"},
			},
			"no image": {
				rolling(shop, "registry.test/none:1", "pullPolicy: Never"),
				[]string{"the update of service web failed", "pullPolicy is Never"},
			},
		} {
			if r := w.ctl(bad.manifest, "apply", "-f", "-", "--wait"); r.Code != 3 {
				w.Errorf("%s: apply --wait ends with %d, want 3: %s%s", how, r.Code, r.Stdout, r.Stderr)
			}
			p := w.notUpdated(shop, bad.words...)
			if serves(p) != before {
				w.Errorf("%s: container %s serves, want %s", how, serves(p), before)
			}
			w.answers("n1", shop+".test", "/", 200, fmt.Sprint("update ", updates-1))
			clients.none(w)
		}
	})

	w.sub("a retry", func(w *testCluster) {
		p := w.project(shop)
		if r := w.ctl("", "retry", shop); r.Code != 0 {
			w.Fatalf("%+v", r)
		}
		w.until(shop, "is tried again", func(now *carav1.Project) bool {
			return now.GetStatus().GetRestartToken() != p.GetStatus().GetRestartToken()
		})
		if again := w.notUpdated(shop, "the update of service web failed"); serves(again) != serves(p) {
			w.Errorf("container %s serves, want %s", serves(again), serves(p))
		}
		clients.none(w)
	})

	w.sub("a newer generation takes a half-made successor away", func(w *testCluster) {
		before := serves(w.project(shop))
		w.apply(rolling(shop, testimage.WebV2, "env:", "- {name: START_DELAY, value: 10m}"))
		ctx, cancel := w.patience()
		defer cancel()
		w.must(w.AwaitHeld(ctx, w.engines[0], shop, "a successor", func(h testdocker.Held) bool { return len(h.Containers) == 2 }))
		if p := w.project(shop); serves(p) != before {
			w.Errorf("container %s serves, want %s", serves(p), before)
		}
		w.apply(rolling(shop, testimage.WebV2))
		w.running(shop)
		w.must(w.AwaitHeld(ctx, w.engines[0], shop, "one container", func(h testdocker.Held) bool { return len(h.Containers) == 1 }))
		w.answers("n1", shop+".test", "/", 200, "web v2")
		clients.none(w)
	})

	w.sub("a restart", func(w *testCluster) {
		before := serves(w.project(shop))
		if r := w.ctl("", "restart", shop); r.Code != 0 {
			w.Fatalf("%+v", r)
		}
		w.until(shop, "has a new container", func(p *carav1.Project) bool { return serves(p) != before })
		w.running(shop)
	})

	if r := w.ctl("", "delete", "project", brief); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	w.gone(brief)
	clients.stop()
	clients.none(w)
	t.Logf("%d requests, answered by %v", clients.requests, clients.versions)
	if clients.versions["v1"] == 0 || clients.versions["v2"] == 0 {
		t.Errorf("versions that answered: %v", clients.versions)
	}
	w.must(socket.echoes("after"))
	for n := range 20 {
		w.must(events.event(n + 2))
	}
}
