package agent

import (
	"context"
	"log/slog"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/enginetest/fake"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/probe"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// volumeLists counts the lists of volumes.
type volumeLists struct {
	*fake.Engine
	n int
}

func (e *volumeLists) ListVolumes(ctx context.Context, labels map[string]string) ([]engine.Volume, error) {
	e.n++
	return e.Engine.ListVolumes(ctx, labels)
}

// TestAVolumeThatWasFilledMeanwhile: an assignment can have a volume that a restore or a move has created since the worker read
// the volumes. The worker must not take its data for lost. Volumes that it knows are not read again.
func TestAVolumeThatWasFilledMeanwhile(t *testing.T) {
	eng := &volumeLists{Engine: fake.New()}
	node, hint := step.Node{Cluster: "c1", Name: "n1"}, func(string) {}
	o := &observer{
		node: node, engine: eng, probes: probe.New(eng, 0, hint),
		pulls: image.NewPuller(eng, image.NewBook(t.TempDir()), slog.New(slog.DiscardHandler), 1, hint),
	}
	uses := func(uid string) *step.Want {
		of := step.Assigned{Project: "p"}
		return &step.Want{Storage: step.Storage{Assigned: of, Uses: map[string]*carav1.VolumeUse{"data": {Name: "data", Uid: uid, Node: "n1", Made: true}}}}
	}
	ws := &workspace{}
	for _, uid := range []string{"11111111-old", "22222222-new"} {
		labels := node.Labels()
		labels[api.LabelVolume], labels[api.LabelVolumeUID] = "p.data", uid
		if err := eng.CreateVolume(t.Context(), api.EngineVolume("p", "data", uid), labels); err != nil {
			t.Fatal(err)
		}
		ws.volumes, eng.n = []engine.Volume{}, 0 // read before
		for range 2 {
			have, err := o.observe(t.Context(), uses(uid), ws)
			if err != nil {
				t.Fatal(err)
			}
			if !uses(uid).HasData(have.Managed) {
				t.Errorf("the volume %s is in the engine, and the worker knows %v", uid, have.Managed)
			}
		}
		if eng.n != 1 {
			t.Errorf("two observations of volume %s read the volumes %d times, want once", uid, eng.n)
		}
	}
}
