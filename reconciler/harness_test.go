package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/internal/test/testlaw"
	"github.com/caravanserai/cara/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster runs a reconciler over a fake API inside a bubble of synctest's time.
type cluster struct {
	*server
	t      *testing.T
	stop   func()
	decide func(plan.Input) plan.Plan // Diff where it is nil
}

// run calls test with a running reconciler and a source `platform` that was never read.
func run(t *testing.T, test func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{server: newServer(), t: t}
		c.Put(newSource("platform", "s1"))
		c.start()
		test(t, c)
		c.stop()
	})
}

func newSource(name, uid string) *carav1.Source {
	return testlaw.Other(name, uid, func(s *carav1.Source) { s.Status = &carav1.SourceStatus{} })
}

// start starts a reconciler, as after a restart of the server.
func (c *cluster) start() {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error)
	r := New(Config{Conn: c.conn(), Logger: slog.New(slog.DiscardHandler), Now: c.now})
	if c.decide != nil {
		r.decide = c.decide
	}
	go func() { done <- r.Run(ctx) }()
	c.stop = func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("run: %v", err)
		}
	}
	c.settle()
}

// settle waits until everything immediate has happened.
func (c *cluster) settle() { c.pass(2 * time.Second) }

// pass moves the bubble's clock.
func (c *cluster) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// publish publishes and lets it happen.
func (c *cluster) push(rev string, claims ...*carav1.Claim) {
	c.t.Helper()
	c.publish(c.t, "platform", rev, claims...)
	c.settle()
}

func (c *cluster) source(name string) *carav1.Source {
	return fakecluster.Read[*carav1.Source](c.Cluster, name)
}

func (c *cluster) project(name string) *carav1.Project {
	return fakecluster.Read[*carav1.Project](c.Cluster, name)
}

// change changes one project without the reconciler.
func (c *cluster) change(name string, f func(*carav1.Project)) {
	p := c.project(name)
	f(p)
	p.Metadata.Generation++
	c.Put(p)
	c.settle()
}

// wantProjects compares what there is with lines of `name image owner`.
func (c *cluster) wantProjects(want ...string) {
	c.t.Helper()
	var have []string
	for _, p := range fakecluster.All[*carav1.Project](c.Cluster) {
		have = append(have, fmt.Sprintf("%s %s %s", p.Metadata.Name, p.Spec.Services[0].Image, api.OrNobody(p.Metadata.Owner)))
	}
	if d := cmp.Diff(want, have); d != "" {
		c.t.Errorf("projects (-want +got):\n%s", d)
	}
}

// wantStates compares the claims with lines of `source/name state`.
func (c *cluster) wantStates(want ...string) {
	c.t.Helper()
	var have []string
	for _, cl := range fakecluster.All[*carav1.Claim](c.Cluster) {
		have = append(have, cl.Metadata.Name+" "+cl.Status.GetState())
	}
	if d := cmp.Diff(want, have); d != "" {
		c.t.Errorf("claims (-want +got):\n%s", d)
	}
}

// wantCondition checks a condition of a source; status empty: it is absent.
func (c *cluster) wantCondition(name, typ, status, says string) {
	c.t.Helper()
	cond := api.FindCondition(c.source(name).Status.Conditions, typ)
	if cond.GetStatus() != status || !strings.Contains(cond.GetReason()+": "+cond.GetMessage(), says) {
		c.t.Errorf("condition %s of %s is %q %q %q, want %q saying %q", typ, name, cond.GetStatus(), cond.GetReason(), cond.GetMessage(), status, says)
	}
}

// wantQuiet checks that nothing is written while a source is looked at again.
func (c *cluster) wantQuiet() {
	c.t.Helper()
	c.settle()
	c.TakeCalls()
	c.Put(c.source("platform")) // wakes a pass
	c.pass(11 * time.Minute)    // and two more resyncs
	if calls := c.TakeCalls(); len(calls) > 0 {
		c.t.Errorf("an unchanged pass called %v", calls)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
