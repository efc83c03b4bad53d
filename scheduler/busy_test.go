package scheduler

import (
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
)

const (
	backedOff = 6 * 35 // six keys that fail, each with a backoff of up to 30 s
)

// Whatever the server answers, a decision without effect is not repeated in a busy loop. The test covers every decision that
// the scheduler can write: bind, explain, evict, move, abandon, and mark nodes as lost and as drained.
func TestSchedulerIsNeverBusy(t *testing.T) {
	for name, tt := range map[string]struct {
		err   error
		touch bool // each write changes the project, so that the watch asks for one more
		most  int  // calls of one method in ten minutes, or in one where touch is set
	}{
		"refused":                       {err: api.Unavailable("no"), most: backedOff},
		"conflict":                      {err: api.Conflict("no"), most: 130},
		"without effect":                {most: 60},
		"without effect, but a change":  {touch: true, most: backedOff + fakecluster.MostChanges},
		"refused, and it has a change":  {err: api.Unavailable("no"), touch: true, most: backedOff + fakecluster.MostFailures},
		"conflict, and it has a change": {err: api.Conflict("no"), touch: true, most: backedOff + fakecluster.MostChanges},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeServer()
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
				conn := &fakecluster.Refusing{ClientConnInterface: w, Answer: func(string) error {
					if tt.touch {
						n := strconv.FormatInt(touches.Add(1), 10)
						w.change("binds", func(p *carav1.Project) { p.Metadata.Annotations = map[string]string{"n": n} })
					}
					return tt.err
				}}
				stop := runOn(t, conn, Config{})
				pass(fakecluster.BusyLength(tt.touch))
				stop()
				conn.AtMost(t, tt.most, "ScheduleProject", "MarkNodeNotReady")
			})
		})
	}
}
