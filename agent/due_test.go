package agent

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/step"
)

// A key's times in the queue are one: the earliest. When that one comes before the task is due, for what it was due at a
// look before, the time that is left must be asked for again, or nothing ever wakes the project.
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
