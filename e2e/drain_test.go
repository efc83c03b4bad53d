package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// copyCounter follows every project, whole transactions at a time, and knows how many did not run at once, at most. It goes
// on with a server that was started again until ctx ends.
type copyCounter struct {
	w    *testCluster
	run  map[string]bool
	peak int
	done chan struct{} // closed once it has ended: then its fields may be read
}

func (w *testCluster) copyCounter(ctx context.Context) *copyCounter {
	w.Helper()
	conn, err := w.Conn()
	w.must(err)
	c := &copyCounter{w: w, run: map[string]bool{}, done: make(chan struct{})}
	synced := make(chan struct{})
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			c.follow(ctx, carav1.NewWatchServiceClient(conn), &synced)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	select {
	case <-synced:
	case <-ctx.Done():
		w.Fatal("the watch did not begin")
	}
	return c
}

func (c *copyCounter) follow(ctx context.Context, client carav1.WatchServiceClient, synced *chan struct{}) {
	stream, err := client.Watch(ctx, &carav1.WatchRequest{Kinds: []string{api.KindProject}})
	for err == nil {
		var m *carav1.WatchResponse
		if m, err = stream.Recv(); err != nil {
			return
		}
		for _, ch := range m.GetChanges() {
			p := ch.GetObject().GetProject()
			c.run[p.GetMetadata().GetName()] = p.GetStatus().GetPhase() == api.PhaseRunning
		}
		n := 0
		for _, runs := range c.run {
			if !runs {
				n++
			}
		}
		c.peak = max(c.peak, n)
		if m.GetSynced() && *synced != nil {
			close(*synced)
			*synced = nil
		}
	}
}

// TestDrain: a node's projects leave so many at a time, each is stopped before it is started elsewhere, and runs there
// before the next goes, a project that fits
// nowhere else stays and says why, and all of that through a restart of the server.
func TestDrain(t *testing.T) {
	w, second := twoNodes(t)
	ctl := func(args ...string) string {
		t.Helper()
		r := w.ctl("", args...)
		if r.Code != 0 {
			t.Fatalf("caractrl %v: exit code %d\n%s%s", args, r.Code, r.Stdout, r.Stderr)
		}
		return r.Stdout
	}
	ctl("cordon", "n1")
	const projects, parallel = 5, 2
	var names []string
	for i := range projects {
		name := w.name(fmt.Sprintf("p%d", i))
		names = append(names, name)
		if i > 0 {
			w.apply(w.web(name, testimage.WebV1))
		}
	}
	w.apply(project(names[0], `
services:
- name: web
  image: `+testimage.WebV1+`
  env: [{name: IGNORE_TERM, value: "1"}]
  stopGracePeriod: 3s
ingress:
- name: web
  host: `+names[0]+`.test
  target: {service: web, port: 8080}`))
	label := func(node string) {
		w.apply("apiVersion: caravanserai/v1\nkind: Node\nmetadata:\n  name: " + node + "\n  labels: {disk: ssd}\n")
	}
	label("n2")
	picky := w.name("picky")
	w.apply(w.web(picky, testimage.WebV1) + "  nodeSelector: {disk: ssd}\n")
	w.running(append(names, picky)...)
	ctl("uncordon", "n1")

	ctx, cancel := w.patience()
	defer cancel()
	watch, endWatch := context.WithCancel(ctx)
	defer endWatch()
	count := w.copyCounter(watch)
	stubborn := w.watchCopies(names[0], w.engines[0], second.Host, func(context.Context) (bool, error) { return true, nil })
	drained := make(chan testcluster.Result, 1)
	go func() {
		r, err := w.Ctl(ctx, "", "drain", "n2", "--max-parallel", fmt.Sprint(parallel), "--timeout", patience.String())
		drained <- testcluster.Result{Code: r.Code, Stdout: r.Stdout, Stderr: r.Stderr + fmt.Sprint(errors.Unwrap(err))}
	}()
	moved := func(p *carav1.Project) bool { return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == "n1" }
	w.until(names[0], "runs on n1", moved)
	w.must(w.Server.Kill())
	w.must(w.StartServer(ctx))
	for _, name := range names {
		w.until(name, "runs on n1", moved)
	}
	w.until(picky, "says why it stays", func(p *carav1.Project) bool {
		return strings.HasSuffix(api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled).GetMessage(),
			"0 of 2 nodes fit: 1 draining, 1 did not match the node selector")
	})
	late := w.ctl("", "drain", "n2", "--max-parallel", fmt.Sprint(parallel), "--timeout", "1s")
	if late.Code != 4 {
		t.Errorf("a drain whose time is over ends with %d", late.Code)
	}
	w.says("caractrl drain", late.Stderr, "project/"+picky+" waits: node n2 is draining, and the project stays",
		"error: after 1s node n2 stays draining, 1 of 1 project to move ("+picky+")", "caractrl uncordon n2 ends it")
	w.says("the list", ctl("get", "nodes"), "Draining")
	label("n1")
	r := <-drained
	endWatch()
	<-count.done
	if r.Code != 0 || !strings.Contains(r.Stdout, "node/n2 drained") {
		t.Fatalf("caractrl drain: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, name := range append(names, picky) {
		if p := w.project(name); !moved(p) || p.GetStatus().GetEpoch() != 2 {
			t.Errorf("project %s is %s on %s in epoch %d", name, p.GetStatus().GetPhase(), p.GetStatus().GetNodeRef(), p.GetStatus().GetEpoch())
		}
		w.says("caractrl drain", r.Stderr, "project/"+name+" moved to n1")
		w.must(w.AwaitNothing(ctx, second.Host, name))
		w.answers("n2", name+".test", "/", 200, "web v1")
	}
	stubborn.single()
	if count.peak > parallel || count.peak == 0 {
		t.Errorf("%d projects did not run at once, want 1 to %d", count.peak, parallel)
	}
	w.says("the list", ctl("get", "nodes"), "Drained")
}
