package e2e

import (
	"fmt"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestManyProjectsInOnePush: one push starts many projects, and another one deletes them after a confirmation. A soak test
// has twice as many networks as Docker's default address pools hold.
func TestManyProjectsInOnePush(t *testing.T) {
	w := oneNode(t)
	many := often(60, 12)
	repo := w.repository("platform", fmt.Sprintf("pruneLimit: %d", many/2), "allowEmpty: true")
	var names []string
	for n := range many {
		names = append(names, w.name(fmt.Sprintf("p%02d", n)))
		repo.Write(fmt.Sprintf("projects/%02d.yaml", n), w.web(names[n], testimage.WebV1))
	}
	w.push(repo, "Start all projects")
	w.running(names...)
	w.answers("n1", names[0]+".test", "/", 200, "web v1 on")
	w.answers("n1", names[many-1]+".test", "/", 200, "web v1 on")

	repo.Remove("projects")
	revision := w.push(repo, "Stop them all")
	s := w.untilSource("platform", "says that it does not delete so many", func(s *carav1.Source) bool {
		return condition(s.GetStatus().GetConditions(), "PruneBlocked").GetStatus() == "True"
	})
	w.says("PruneBlocked", condition(s.GetStatus().GetConditions(), "PruneBlocked").GetMessage(), fmt.Sprint(many), "caractrl confirm platform@"+revision[:7])
	w.running(names[0], names[many-1])
	if r := w.ctl("", "confirm", "platform@"+revision[:12]); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	w.gone(names...)
}
