package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testlink"
)

// hang is how long the engine does not answer: longer than any time-out of the agent's for one call.
const hang = time.Minute

// TestEngineHangsForAMinute: its socket takes connections and says nothing. Nothing is torn down or taken for gone, the
// node says so, the server and the other commands answer as ever, and what was asked for meanwhile is done afterwards.
func TestEngineHangsForAMinute(t *testing.T) {
	engine := testdocker.Engine(t)
	t.Parallel()
	link := linked(t, testlink.Address{Network: "unix", Name: filepath.Join(t.TempDir(), "d")},
		testlink.Address{Network: "unix", Name: strings.TrimPrefix(engine, "unix://")})
	w := newWorld(t, options{})
	w.agent("n1", "unix://"+link.Addr(), nil)
	settled, leaving, late := w.name("settled"), w.name("leaving"), w.name("late")
	w.apply(w.web(settled, testimage.WebV1) + "---\n" + w.web(leaving, testimage.WebV1))
	w.running(settled, leaving)
	before := w.equal("n1", engine)
	id := before[settled+".web"]
	startedAt := w.state(engine, id).StartedAt

	link.Hold()
	over := time.After(hang)
	w.engineReady("n1", api.StatusFalse)
	w.apply(w.web(late, testimage.WebV1))
	w.says("the deletion", w.ctl("", "delete", "project", leaving, "--wait=false").Stdout, "deleted")
	for looks := time.NewTicker(time.Second); ; {
		w.calm(engine, settled, id, startedAt)
		w.calm(engine, leaving, before[leaving+".web"], w.state(engine, before[leaving+".web"]).StartedAt)
		if phase := w.project(settled).GetStatus().GetPhase(); phase != api.PhaseRunning {
			t.Errorf("the settled project is %s while the engine hangs", phase)
		}
		w.says("the nodes", w.ctl("", "get", "nodes").Stdout, "n1")
		if held, err := w.Held(t.Context(), engine, ""); err != nil || len(held.Containers) != 2 || t.Failed() {
			t.Fatalf("%v: the engine holds, while it hangs,\n%s", err, held)
		}
		select {
		case <-looks.C:
			continue
		case <-over:
		}
		looks.Stop()
		break
	}
	link.Release()
	w.engineReady("n1", api.StatusTrue)
	w.running(settled, late)
	w.gone(leaving)
	w.calm(engine, settled, id, startedAt)
	w.equal("n1", engine)
}

// TestLinkHeldLongerThanRescheduleAfter: nothing passes between an agent and the server, and no connection breaks. The
// project moves; the project that may not stays. When the link is let go the agent hears of it on its old connection,
// stops what is no longer its own, and restarts nothing.
func TestLinkHeldLongerThanRescheduleAfter(t *testing.T) {
	first := testdocker.Engine(t)
	t.Parallel()
	second := secondEngine(t)
	listen := wildcard(t)
	link := linked(t, testlink.Address{Network: "tcp", Name: second.Gateway + ":0"},
		testlink.Address{Network: "tcp", Name: strings.Replace(listen, "0.0.0.0", "127.0.0.1", 1)})
	w := newWorld(t, options{listen: listen})
	w.agent("n1", first, nil)
	w.agentBehind("n2", second, "http://"+link.Addr())
	if r := w.ctl("", "cordon", "n1"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	moving, patient := w.name("moving"), w.name("patient")
	w.apply(w.web(moving, testimage.WebV1) + "  rescheduleAfter: 5s\n---\n" + w.web(patient, testimage.WebV1) + "  rescheduleAfter: never\n")
	w.running(moving, patient)
	if r := w.ctl("", "uncordon", "n1"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	stays := w.equal("n2", second.Host)[patient+".web"]
	startedAt := w.state(second.Host, stays).StartedAt
	copies := w.watchCopies(moving, first, second.Host, w.n2IsReady())

	link.Hold()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitNode(ctx, "n2", api.NodeNotReady))
	w.until(moving, "runs on n1", func(p *carav1.Project) bool { return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == "n1" })
	w.equal("n1", first)
	w.calm(second.Host, patient, stays, startedAt)
	link.Release()
	w.ready("n2")
	w.must(w.AwaitNothing(ctx, second.Host, moving))
	w.running(moving, patient)
	w.calm(second.Host, patient, stays, startedAt)
	w.equal("n1", first)
	w.equal("n2", second.Host)
	w.answers("n1", moving+".test", "/", 200, "web v1")
	copies.fenced()
}

// linked starts a link that outlives the cluster that is made after it.
func linked(t *testing.T, from, to testlink.Address) *testlink.Link {
	t.Helper()
	link, err := testlink.Start(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	return link
}

// agentBehind starts an agent in an engine's namespace that reaches the server at an address of its own.
func (w *testCluster) agentBehind(name string, second *testdocker.Second, server string) {
	w.Helper()
	testdocker.Images(w.T, second.Host, testimage.WebV1, testimage.WebV2, testimage.KV, testimage.Job)
	enter := second.Command(w.Context(), "true").Args
	w.engines = append(w.engines, second.Host)
	w.startAgent(testcluster.Agent{
		Name: name, DockerHost: second.Host, Enter: enter[:len(enter)-1], Server: server, Ingress: second.Address + ":8081",
	})
}
