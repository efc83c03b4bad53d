package rules

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestLaterOf(t *testing.T) {
	project := func(node, heldBy, phase string, epoch int32) *carav1.Project {
		return &carav1.Project{
			Metadata: &carav1.ObjectMeta{Name: "shop", Uid: "u"},
			Status:   &carav1.ProjectStatus{NodeRef: node, HeldBy: heldBy, Phase: phase, Epoch: epoch},
		}
	}
	for name, tc := range map[string]struct {
		project *carav1.Project
		uid     string
		epoch   int32
		late    bool
		want    Later
	}{
		"no project":                                  {nil, "u", 4, false, LaterUnknown},
		"a namesake":                                  {project("n1", "", api.PhaseRunning, 3), "v", 4, false, LaterUnknown},
		"as the state says":                           {project("n1", "", api.PhaseRunning, 4), "u", 4, false, LaterNothing},
		"older than the state":                        {project("n1", "", api.PhaseRunning, 5), "u", 4, false, LaterNothing},
		"later on its node":                           {project("n1", "", api.PhaseRunning, 3), "u", 4, false, LaterHere},
		"later on its node that was away":             {project("n1", "", api.PhaseRunning, 3), "u", 4, true, LaterHere},
		"later on its node, and it ends":              {project("n1", "", api.PhaseTerminating, 3), "u", 4, false, LaterHere},
		"its node has it, the state awaits n2":        {project("n1", "n2", api.PhaseScheduled, 4), "u", 4, false, LaterHere},
		"its node had it, the state awaits n2":        {project("n1", "n2", api.PhaseScheduled, 4), "u", 3, false, LaterNothing},
		"on another node":                             {project("n2", "", api.PhaseRunning, 3), "u", 4, false, LaterElsewhere},
		"on another node, and leaving this one":       {project("n2", "", api.PhaseRunning, 3), "u", 0, false, LaterElsewhere},
		"on another node, and this one was away":      {project("n2", "", api.PhaseRunning, 3), "u", 4, true, LaterNothing},
		"on another node, and left this one long ago": {project("n2", "", api.PhaseRunning, 5), "u", 4, false, LaterNothing},
		"on no node, and left this one long ago":      {project("", "", api.PhasePending, 5), "u", 4, false, LaterNothing},
		"on another node, with the same epoch":        {project("n2", "", api.PhaseRunning, 4), "u", 4, false, LaterElsewhere},
		"on no node":                                  {project("", "", api.PhasePending, 3), "u", 4, false, LaterElsewhere},
		"on another node, held by this one":           {project("n2", "n1", api.PhaseScheduled, 4), "u", 5, false, LaterNothing},
		"on another node, held by a third":            {project("n2", "n3", api.PhaseScheduled, 4), "u", 5, false, LaterElsewhere},
		"on another node, held by a third, older":     {project("n2", "n3", api.PhaseScheduled, 6), "u", 5, false, LaterNothing},
		"gone":                     {project("n2", "", api.PhaseTerminated, 3), "u", 4, false, LaterNothing},
		"far ahead":                {project("n1", "", api.PhaseRunning, 3), "u", 4 + maxAhead, false, LaterNothing},
		"far ahead of another one": {project("n2", "", api.PhaseRunning, 3), "u", 4 + maxAhead, false, LaterNothing},
	} {
		t.Run(name, func(t *testing.T) {
			o := &carav1.ObeyedProject{Name: "shop", Uid: tc.uid, Epoch: tc.epoch}
			if got := LaterOf(tc.project, "n1", o, tc.late); got != tc.want {
				t.Errorf("%d, want %d", got, tc.want)
			}
		})
	}
}
