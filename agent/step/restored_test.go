package step

import (
	"slices"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// restoredTo gives the project another volume with data, as the server does when a restore is complete on the same node.
func (w *Want) restoredTo(uid string) *Want {
	next := *w
	next.Epoch++
	next.use(func(u *carav1.VolumeUse) { u.Uid, u.Node, u.Made = uid, "n1", true })
	return &next
}

// TestRestoredVolume: the project is stopped on its old data, dependents first, before anything starts on the restored data.
// Both volumes stay.
func TestRestoredVolume(t *testing.T) {
	spec := dataSpec()
	spec.Services[1].DependsOn = []*carav1.Dependency{{Service: "db"}}
	old, e := wantOf(spec), newWorld()
	e.images["web"] = true
	converge(t, e, old)
	w := old.restoredTo("bbbbbbbb-data")
	e.data = append(e.data, engine.Volume{Name: w.source("data").Volume, Labels: w.VolumeLabels(w.source("data").Volume)})
	both := slices.Clone(e.data)
	var done []string
	for range 100 {
		h := e.have(w)
		actions := Step(w, h, e.now)
		left := slices.ContainsFunc(h.Containers, func(c engine.Container) bool { return !w.sameAssignment(c.Labels) })
		for _, a := range actions {
			if left && a.Kind != KindDeleteContainer {
				t.Errorf("%v while containers are on the old data", a)
			}
			done = append(done, string(a.Kind)+" "+a.Service)
		}
		if len(actions) == 0 {
			break
		}
		unharmed(t, w, h, actions, e.now)
		e.do(w, actions)
	}
	if first := done[:min(len(done), 2)]; !slices.Equal(first, []string{"DeleteContainer web", "DeleteContainer db"}) {
		t.Errorf("first %v", first)
	}
	if len(e.containers) != 2 || !slices.EqualFunc(e.data, both, func(a, b engine.Volume) bool { return a.Name == b.Name }) {
		t.Errorf("containers %v, data %v; want 2 and %v", e.containers, e.data, both)
	}
	for _, c := range e.containers {
		if c.Labels[api.LabelService] == "db" && c.Mounts["/data"].Volume != w.source("data").Volume {
			t.Errorf("db mounts %v", c.Mounts)
		}
	}
}

// TestRestoredVolumeIsMissing: it is lost like any other data, and no empty volume takes its place.
func TestRestoredVolumeIsMissing(t *testing.T) {
	old, e := wantOf(dataSpec()), newWorld()
	e.images["web"] = true
	converge(t, e, old)
	w := old.restoredTo("bbbbbbbb-data")
	e.containers, e.networks, e.volumes = nil, nil, nil
	actions := Step(w, e.have(w), e.now)
	i := slices.IndexFunc(actions, func(a Action) bool { return a.Kind == KindFail })
	if i < 0 || actions[i].Failure.Reason != api.ReasonVolumeLost {
		t.Errorf("does %v", actions)
	}
	if slices.ContainsFunc(actions, func(a Action) bool { return a.Kind == KindCreateVolume && a.Name == w.source("data").Volume }) {
		t.Errorf("creates a volume: %v", actions)
	}
}
