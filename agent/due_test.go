package agent

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/step"
)

// The queue keeps one time per key: the earliest. If an earlier look set the time before the task is due, the remaining time
// must be scheduled again, or nothing ever wakes the project.
func TestALookThatIsNotDueYetIsAskedForAgain(t *testing.T) {
	now := time.Now()
	want := &step.Want{}
	a := &assignments{tasks: map[string]*task{"p": {want: want, settled: want, due: now.Add(8 * time.Second)}}}
	if _, _, look, again := a.current("p", now.Add(3*time.Second)); look || again != 5*time.Second {
		t.Errorf("look %v, again %s; want false and 5s", look, again)
	}
	if _, _, look, _ := a.current("p", now.Add(8*time.Second)); !look {
		t.Error("what is due is not looked at")
	}
	a.tasks["p"] = &task{want: want, settled: want}
	if _, _, look, again := a.current("p", now); look || again != 0 {
		t.Errorf("look %v, again %s of what waits for nothing", look, again)
	}
}
