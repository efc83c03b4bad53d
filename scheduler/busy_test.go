package scheduler

import (
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
)

const (
	backedOff = 6 * 35           // six keys that fail, each with a backoff of up to 30 s
	asked     = 300 + 60*20 + 10 // one key that is asked for all the time: see the budget of a loop.Queue
	failed    = 300/20 + 60 + 5  // one key that is asked for all the time and fails
)

// Whatever the server answers, a decision without effect is not repeated in a busy loop. Every decision that the
// scheduler can write is due here: it binds, explains, evicts, moves, abandons, and marks nodes lost and drained.
func TestSchedulerIsNeverBusy(t *testing.T) {
	for name, tt := range map[string]struct {
		err   error
		touch bool // each write changes the project, so that the watch asks for one more
		most  int  // calls of one method in ten minutes, or in one where touch is set
	}{
		"refused":                       {err: api.Unavailable("no"), most: backedOff},
		"conflict":                      {err: api.Conflict("no"), most: 130},
		"without effect":                {most: 60},
		"without effect, but a change":  {touch: true, most: backedOff + asked},
		"refused, and it has a change":  {err: api.Unavailable("no"), touch: true, most: backedOff + failed},
		"conflict, and it has a change": {err: api.Conflict("no"), touch: true, most: backedOff + asked},
	} {
		t.Run(name, func(t *testing.T) {
			length := 10 * time.Minute
			if tt.touch {
				length = time.Minute
			}
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				lost, drains := node("lost", "8Gi"), node("drains", "8Gi")
				drains.Spec = &carav1.NodeSpec{Draining: true}
				w.Put(node("n1", "8Gi"), lost, drains, pending("binds", ""), pending("waits", "80Gi"))
				for project, at := range map[string]string{"moves": "drains", "evicted": "gone", "abandoned": "lost"} {
					p := pending(project, "")
					p.Status.Phase, p.Status.NodeRef, p.Status.Epoch = api.PhaseRunning, at, 1
					if project == "abandoned" {
						p.Status.Phase = api.PhaseTerminating
					}
					w.Put(p)
				}
				defer live(w, "n1", "drains")()
				var touches atomic.Int64
				conn := &fakecluster.Stubborn{ClientConnInterface: w, Answer: func(string) error {
					if tt.touch {
						n := strconv.FormatInt(touches.Add(1), 10)
						w.change("binds", func(p *carav1.Project) { p.Metadata.Annotations = map[string]string{"n": n} })
					}
					return tt.err
				}}
				stop := runOn(t, conn, Config{})
				pass(length)
				stop()
				calls := conn.Calls()
				t.Log(calls)
				if calls["ScheduleProject"] == 0 || calls["MarkNodeNotReady"] == 0 {
					t.Error("nothing was decided")
				}
				for method, n := range calls {
					if n > tt.most {
						t.Errorf("%s was called %d times in %s, want at most %d", method, n, length, tt.most)
					}
				}
			})
		})
	}
}
