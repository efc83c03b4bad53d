package e2e

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestAgentKilledDuringARollout: the next one adopts what is there, makes no second container, and restarts nothing.
func TestAgentKilledDuringARollout(t *testing.T) {
	w := oneNode(t)
	host := w.engines[0]
	settled := w.name("settled")
	w.apply(w.web(settled, testimage.WebV1))
	w.running(settled)
	before := w.containers(host, settled)

	var names []string
	manifests := ""
	for n := range 6 {
		names = append(names, w.name(fmt.Sprintf("roll%d", n)))
		manifests += "---\n" + project(names[n], `
services:
- name: db
  image: `+testimage.KV+`
- name: web
  image: `+testimage.WebV1+`
- name: worker
  image: `+testimage.WebV2)
	}
	w.apply(manifests)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitHeld(ctx, host, "", "a rollout that is half done", func(h testdocker.Held) bool { return len(h.Containers) >= 6 }))
	w.must(w.Agents["n1"].Kill())
	held, err := w.Held(ctx, host, "")
	w.must(err)
	made, started := map[string]bool{}, 0
	for _, c := range held.Containers {
		made[c.ID] = true
		if c.State == "running" {
			started++
		}
	}
	if started >= 1+3*len(names) { // a slow engine shows all of them long before all have started
		t.Fatalf("the rollout was over before the agent was killed: %d containers run", started)
	}
	w.must(w.RestartAgent("n1"))
	w.running(names...)
	w.running(settled)
	adopted := 0
	for _, name := range names {
		ids := w.containers(host, name)
		if len(ids) != 3 {
			t.Errorf("project %s has %d containers: %v", name, len(ids), ids)
		}
		for service, id := range ids {
			if made[id] {
				adopted++
			}
			if s := w.state(host, id); !s.Running {
				t.Errorf("%s.%s does not run", name, service)
			}
		}
	}
	if adopted != len(made)-1 {
		t.Errorf("%d containers were there when the agent was killed, %d of them are in use", len(made)-1, adopted)
	}
	if after := w.containers(host, settled); !maps.Equal(before, after) {
		t.Errorf("the settled project's containers were %v and are %v", before, after)
	}
	w.equal("n1", host)
	for _, s := range w.project(settled).GetStatus().GetServices() {
		if s.GetRestarts() != 0 {
			t.Errorf("the settled project was restarted: %v", s)
		}
	}
}

// TestServerKilledDuringAnApply of 500 projects, many callers at once: what was acknowledged is there afterwards.
func TestServerKilledDuringAnApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	const callers, each, perApply = 5, 100, 4
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	half := make(chan struct{}) // closed once the server is to be killed
	conn, err := w.Conn()
	w.must(err)
	client := carav1.NewApplyServiceClient(conn)
	var work sync.WaitGroup
	for caller := range callers {
		work.Go(func() {
			for at := 0; at < each; at += perApply {
				var batch []*carav1.Object
				for n := range perApply {
					batch = append(batch, api.Wrap(plain(fmt.Sprintf("p%d-%03d", caller, at+n))))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				resp, err := client.Apply(ctx, &carav1.ApplyRequest{Objects: batch})
				cancel()
				if err != nil {
					return // the server is gone
				}
				mu.Lock()
				for _, r := range resp.GetResults() {
					if r.GetAction() != "created" {
						t.Errorf("%v", r)
					}
					acknowledged[r.GetName()] = true
				}
				if len(acknowledged) >= callers*each/3 {
					select {
					case <-half:
					default:
						close(half)
					}
				}
				mu.Unlock()
			}
		})
	}
	<-half
	w.must(w.Server.Kill())
	work.Wait()
	if n := len(acknowledged); n == callers*each {
		t.Fatalf("all %d were acknowledged before the server was killed", n)
	}
	ctx, cancel := w.patience()
	defer cancel()
	began := time.Now()
	w.must(w.StartServer(ctx))
	t.Logf("%d of %d acknowledged; ready again after %s", len(acknowledged), callers*each, time.Since(began).Round(time.Millisecond))
	projects, err := w.Projects()
	w.must(err)
	list, err := projects.ListProjects(ctx, &carav1.ListProjectsRequest{})
	w.must(err)
	there := map[string]bool{}
	for _, p := range list.GetItems() {
		there[p.GetMetadata().GetName()] = true
		if p.GetStatus().GetPhase() != api.PhasePending || len(p.GetSpec().GetServices()) != 1 {
			t.Errorf("project %s is not whole: %v", p.GetMetadata().GetName(), p)
		}
	}
	for name := range acknowledged {
		if !there[name] {
			t.Errorf("project %s was acknowledged and is lost", name)
		}
	}
	if len(there) > len(acknowledged)+callers*perApply {
		t.Errorf("%d projects are there, %d were acknowledged and %d more asked for", len(there), len(acknowledged), callers*perApply)
	}
}

func plain(name string) *carav1.Project {
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: testimage.WebV1}}},
	}
}

// TestContainerDiesWhileTheServerIsDown: the agent keeps it alive, and tells the server when that is back.
func TestContainerDiesWhileTheServerIsDown(t *testing.T) {
	w := oneNode(t)
	name, host := w.name("alone"), w.engines[0]
	w.apply(w.web(name, testimage.WebV1))
	w.running(name)
	id := w.containers(host, name)["web"]
	w.must(w.Server.Kill())
	w.stopBehindBack(host, id)
	w.lives(host, name)
	w.answers("n1", name+".test", "/", 200, "web v1")

	w.must(w.Agents["n1"].Kill())
	w.stopBehindBack(host, w.containers(host, name)["web"])
	w.must(w.RestartAgent("n1"))
	w.lives(host, name)
	w.answers("n1", name+".test", "/", 200, "web v1")

	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.StartServer(ctx))
	w.ready("n1")
	w.running(name)
	w.until(name, "tells of its restart", func(p *carav1.Project) bool { return p.GetStatus().GetServices()[0].GetRestarts() > 0 })
	w.equal("n1", host)
	w.answers("n1", name+".test", "/", 200, "web v1")
}

// lives waits until the web container of a project runs.
func (w *testCluster) lives(host, name string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitHeld(ctx, host, name, "the running container of "+name, func(h testdocker.Held) bool {
		return len(h.Containers) == 1 && h.Containers[0].State == container.StateRunning
	}))
}

// TestContainersKeepRunningWhenTheAgentStops, and their restarts are counted on.
func TestContainersKeepRunningWhenTheAgentStops(t *testing.T) {
	w := oneNode(t)
	name, host := w.name("calm"), w.engines[0]
	w.apply(w.web(name, testimage.WebV1))
	w.running(name)
	before := w.containers(host, name)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Agents["n1"].Stop(ctx))
	if s := w.state(host, before["web"]); !s.Running {
		t.Errorf("the container is %s", s.Status)
	}
	w.must(w.RestartAgent("n1"))
	w.ready("n1")
	w.answers("n1", name+".test", "/", 200, "web v1")
	if after := w.containers(host, name); !maps.Equal(before, after) {
		t.Errorf("containers %v, then %v", before, after)
	}
}
