package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
)

// copies is where a project ran, look by look, while it moved from one engine to another.
type copies struct {
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
	seen []sample // one for each change
	err  error    // why it stopped looking early
}

// sample is how it stood at one moment. known says whether the server took the old node for reachable before and after it.
type sample struct {
	old, new bool // a copy runs there
	known    bool
	at       time.Time
}

func (l sample) String() string {
	return fmt.Sprintf("%s old=%t new=%t reachable=%t", l.at.Format("15:04:05.000"), l.old, l.new, l.known)
}

// n2IsReady says whether the server takes n2 for reachable.
func (w *testCluster) n2IsReady() func(context.Context) (bool, error) {
	w.Helper()
	nodes, err := w.Nodes()
	w.must(err)
	return func(ctx context.Context) (bool, error) {
		n, err := nodes.GetNode(ctx, &carav1.GetRequest{Name: "n2"})
		return n.GetStatus().GetState() == api.NodeReady, err
	}
}

// watchCopies looks as often as the engines answer at a project that moves from n2, on the engine from, to the engine to.
func (w *testCluster) watchCopies(name, to, from string, reachable func(context.Context) (bool, error)) *copies {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	c := &copies{t: w.T, stop: cancel, done: make(chan struct{})}
	runs := func(host string) (bool, error) {
		held, err := w.Held(ctx, host, name)
		return runningIn(held), err
	}
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			before, err1 := reachable(ctx)
			old, err2 := runs(from)
			next, err3 := runs(to)
			after, err4 := reachable(ctx)
			for _, err := range []error{err1, err2, err3, err4} {
				if err != nil {
					c.err = err
					return
				}
			}
			l := sample{old: old, new: next, known: before && after, at: time.Now()}
			if n := len(c.seen); n == 0 || c.seen[n-1].old != l.old || c.seen[n-1].new != l.new || c.seen[n-1].known != l.known {
				c.seen = append(c.seen, l)
			}
		}
	}()
	w.Cleanup(cancel)
	return c
}

func runningIn(held testdocker.Held) bool {
	for _, c := range held.Containers {
		if string(c.State) == "running" {
			return true
		}
	}
	return false
}

// single ends the watch: the project moved, and there was never a second copy.
func (c *copies) single() {
	c.t.Helper()
	c.stop()
	<-c.done
	if c.err != nil && !strings.Contains(c.err.Error(), context.Canceled.Error()) {
		c.t.Error(c.err)
	}
	for _, l := range c.seen {
		if l.old && l.new {
			c.t.Errorf("two copies of one project: %v", c.seen)
		}
	}
	if len(c.seen) < 2 || !c.seen[0].old || !c.seen[len(c.seen)-1].new {
		c.t.Errorf("the project did not move as it should: %v", c.seen)
	}
}

// fenced ends the watch. A second copy came up only while the old node could not be reached, and once one of the two had
// gone there was one for ever.
func (c *copies) fenced() {
	c.t.Helper()
	c.stop()
	<-c.done
	if c.err != nil && !strings.Contains(c.err.Error(), context.Canceled.Error()) {
		c.t.Error(c.err)
	}
	var lines []string
	two, ended := false, false
	for i, l := range c.seen {
		lines = append(lines, l.String())
		switch both := l.old && l.new; {
		case both && !two && (l.known || ended):
			c.t.Errorf("look %d: two copies of one project on reachable nodes", i)
		case both && ended:
			c.t.Errorf("look %d: a second copy came back", i)
		case both:
			two = true
		case two:
			ended = true
		}
	}
	if !two || !ended || c.seen[len(c.seen)-1].old || !c.seen[len(c.seen)-1].new {
		c.t.Errorf("the project did not move as it should")
	}
	c.t.Logf("copies of the project:\n%s", strings.Join(lines, "\n"))
}
