package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// withData is a project whose first service mounts the Managed volume data and the Ephemeral volume cache.
func withData(images ...string) *carav1.ProjectSpec {
	spec := services(images...)
	spec.Volumes = []*carav1.ProjectVolume{{Name: "data", Type: api.VolumeManaged}, {Name: "cache"}}
	spec.Services[0].VolumeMounts = []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "cache", MountPath: "/cache"}}
	return spec
}

// volumes of the engine: labels by name.
func (f *faked) volumes(t *testing.T) map[string]map[string]string {
	t.Helper()
	list, err := f.engine.ListVolumes(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]string{}
	for _, v := range list {
		out[v.Name] = v.Labels
	}
	return out
}

// lost waits until a project is Failed because its data is lost, and checks that no volume has taken the place of it.
func (f *faked) lost(t *testing.T) {
	t.Helper()
	p := f.wait(t, "p", phase(api.PhaseFailed))
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase)
	if c.GetReason() != api.ReasonVolumeLost || !strings.Contains(c.GetMessage(), "p.data") {
		t.Errorf("it is Failed for %s: %s", c.GetReason(), c.GetMessage())
	}
	if labels, ok := f.volumes(t)[dataName("p", "data")]; ok {
		t.Errorf("there is a new volume with the labels %v", labels)
	}
	for name, c := range f.containers(t) {
		if c.State == engine.StateRunning {
			t.Errorf("container %s runs", name)
		}
	}
}

// takeAway removes the containers and the data of the project by hand.
func (f *faked) takeAway(t *testing.T) {
	t.Helper()
	for _, c := range f.containers(t) {
		if err := f.engine.RemoveContainer(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	f.engine.DropVolume(dataName("p", "data"))
}

// TestManagedVolumeLives: a Managed volume has its own labels, it stays when its project goes, the next project of the name
// mounts it, and only the server's request removes it.
func TestManagedVolumeLives(t *testing.T) {
	f, name, uid := newFaked(t), dataName("p", "data"), volumeUID("p", "data")
	f.put("p", withData("web"))
	f.edit("p", func(p *carav1.Project) { p.Metadata.Owner = "source/git" })
	f.run(t)
	p := f.wait(t, "p", phase(api.PhaseRunning))
	mounts := f.containers(t)["cara-p.a"].Mounts
	if diff := cmp.Diff(map[string]engine.Source{"/data": {Volume: name}, "/cache": {Volume: "cara-p.cache"}}, mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	labels := map[string]string{
		api.LabelCluster: "c1", api.LabelNode: "n1", api.LabelVolume: "p.data", api.LabelVolumeUID: uid, api.LabelOwner: "source/git",
	}
	if diff := cmp.Diff(labels, f.volumes(t)[name]); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	waitUntil(t, func() bool {
		held, _ := f.holds()
		return held[uid].GetProject() == "p" && held[uid].GetName() == "data" && held[uid].GetOwner() == "source/git"
	})
	f.wait(t, "p", func(p *carav1.Project) bool { return api.VolumeUse(p, "data").GetMade() })

	f.removeVolume("p", "data") // a server that contradicts itself
	seen := f.engine.Calls("ListVolumes")
	waitUntil(t, func() bool { return f.engine.Calls("ListVolumes") > seen+5 })
	if f.engine.Calls("RemoveVolume") > 0 {
		t.Error("a volume in use was to be removed")
	}
	f.away(true)
	f.mu.Lock()
	clear(f.removals)
	f.mu.Unlock()
	f.away(false)

	f.terminate("p")
	f.wait(t, "p", gone)
	if got := slices.Collect(maps.Keys(f.volumes(t))); !slices.Equal(got, []string{name}) {
		t.Errorf("the volumes %v are left, want %s", got, name)
	}
	f.put("p", withData("web"))
	next := f.wait(t, "p", phase(api.PhaseRunning))
	if at := f.containers(t)["cara-p.a"].Mounts["/data"]; at.Volume != name || next.GetMetadata().GetUid() == p.GetMetadata().GetUid() {
		t.Errorf("the next project mounts %v", at)
	}
	f.terminate("p")
	f.wait(t, "p", gone)
	f.removeVolume("p", "data")
	waitUntil(t, func() bool { return f.removing() == 0 })
	if !f.empty(t) {
		t.Errorf("left: %v", f.volumes(t))
	}
	f.removeVolume("p", "data") // it is gone already
	waitUntil(t, func() bool { return f.removing() == 0 })
}

// TestRemovalSurvivesRestart: the next agent is asked again, and it retries while the engine refuses.
func TestRemovalSurvivesRestart(t *testing.T) {
	f := newFaked(t)
	f.up(t, withData("web"))
	f.terminate("p")
	f.wait(t, "p", gone)
	f.stop()
	f.removeVolume("p", "data")
	var refused atomic.Int64
	f.engine.Fault(func(call string) error {
		if call == "RemoveVolume" && refused.Add(1) < 3 {
			return fmt.Errorf("volume is in use")
		}
		return nil
	})
	f.run(t)
	waitUntil(t, func() bool { return f.removing() == 0 })
	if !f.empty(t) || refused.Load() != 3 {
		t.Errorf("left: %v after %d tries", f.volumes(t), refused.Load())
	}
}

// TestAUsedVolumeIsNoUnusedCopy: a server that was restored from a backup may take the data of a project that has ended here for
// the copy of a move. The agent says that it was used, also after a restart, and removes it only as what it is.
func TestAUsedVolumeIsNoUnusedCopy(t *testing.T) {
	f, uid := newFaked(t), volumeUID("p", "data")
	f.up(t, withData("web"))
	f.terminate("p")
	f.wait(t, "p", gone)
	f.stop()
	f.run(t)
	used := func() bool {
		held, _ := f.holds()
		return held[uid].GetUsed()
	}
	waitUntil(t, used)
	_, before := f.holds()
	removals := f.engine.Calls("RemoveVolume") // of the project's other volume
	f.removeCopy("p", "data")
	waitUntil(t, func() bool { // it answers with its inventory
		_, taken := f.holds()
		return taken > before
	})
	if !used() || f.engine.Calls("RemoveVolume") > removals {
		t.Errorf("a used volume was removed as an unused copy; left: %v", f.volumes(t))
	}
	f.removeVolume("p", "data")
	waitUntil(t, func() bool { return f.removing() == 0 })
	if !f.empty(t) {
		t.Errorf("left: %v", f.volumes(t))
	}
}

// TestDataIsNeverReplaced: data that was made and is gone makes the project fail, whoever knows that it was made.
func TestDataIsNeverReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		deaf   bool // the server does not know that the volume was made
		off    bool // the agent does not run meanwhile
		record bool // the agent's record is there
	}{
		"while the agent runs":                         {record: true},
		"while the agent runs, and the server is deaf": {deaf: true, record: true},
		"while the agent is away":                      {off: true, record: true},
		"while it is away, and only the record knows":  {deaf: true, off: true, record: true},
		"while it is away, and only the server knows":  {off: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			f.deaf = c.deaf
			f.up(t, withData("web", "web"))
			if !c.deaf {
				f.wait(t, "p", func(p *carav1.Project) bool { return api.VolumeUse(p, "data").GetMade() })
			}
			if c.off {
				f.stop()
			}
			if !c.record {
				if err := os.RemoveAll(filepath.Join(f.cfg.DataDir, "records")); err != nil {
					t.Fatal(err)
				}
			}
			f.takeAway(t)
			if c.off {
				f.run(t)
			}
			f.lost(t)
			waitUntil(t, func() bool { held, _ := f.holds(); return len(held) == 0 })
		})
	}
}

// TestLostDuringUpdate: the data goes between an update's removal of the container and its successor.
func TestLostDuringUpdate(t *testing.T) {
	f := newFaked(t)
	f.up(t, withData("web"))
	f.stop()
	f.takeAway(t)
	spec := withData("web:2")
	f.put("p", spec)
	f.run(t)
	f.lost(t)
}

// pruner removes a volume just before a container is created, like `docker volume prune` between the agent's list and its
// create. The engine then creates an empty volume.
type pruner struct {
	*faked
	engine.Engine
	name string
	once atomic.Bool
}

func (e *pruner) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (string, error) {
	if e.once.CompareAndSwap(true, false) {
		e.engine.DropVolume(e.name)
	}
	return e.Engine.CreateContainer(ctx, spec)
}

// TestPrunedBeforeCreate: a container that the engine gave an empty volume is never started.
func TestPrunedBeforeCreate(t *testing.T) {
	f := newFaked(t)
	eng := &pruner{faked: f, Engine: f.engine, name: dataName("p", "data")}
	f.cfg.Engine = eng
	f.up(t, withData("web"))
	f.wait(t, "p", func(p *carav1.Project) bool { return api.VolumeUse(p, "data").GetMade() })
	starts := f.engine.Calls("StartContainer")
	f.stop()
	eng.once.Store(true)
	for _, c := range f.containers(t) {
		if err := f.engine.RemoveContainer(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	f.run(t)
	f.lost(t)
	if n := f.engine.Calls("StartContainer") - starts; n != 0 {
		t.Errorf("%d containers were started", n)
	}
	if _, kept := f.volumes(t)["cara-p.cache"]; !kept {
		t.Error("the Ephemeral volume is gone")
	}
}

// watched checks the agent's record at each creation of a container.
type watched struct {
	engine.Engine
	check func()
}

func (e *watched) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (string, error) {
	e.check()
	return e.Engine.CreateContainer(ctx, spec)
}

// TestMadeIsOnDiskFirst: before a container that mounts a Managed volume exists, the record on disk says that the volume was
// made. If the record cannot be written, nothing is created.
func TestMadeIsOnDiskFirst(t *testing.T) {
	f := newFaked(t)
	records := filepath.Join(f.cfg.DataDir, "records")
	f.cfg.Engine = &watched{Engine: f.engine, check: func() {
		var r step.Record
		data, err := os.ReadFile(filepath.Join(records, "p.json"))
		if err != nil || json.Unmarshal(data, &r) != nil || !r.Made[volumeUID("p", "data")] {
			t.Errorf("a container is created, and the record is %s (%v)", data, err)
		}
	}}
	if err := os.WriteFile(records, nil, 0o600); err != nil { // a file in the place of the directory
		t.Fatal(err)
	}
	f.run(t)
	f.put("p", withData("web"))
	f.wait(t, "p", func(p *carav1.Project) bool {
		return strings.Contains(api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage(), "data directory cannot be written")
	})
	if n := f.engine.Calls("CreateContainer"); n != 0 {
		t.Errorf("%d containers were created", n)
	}
	if err := os.Remove(records); err != nil {
		t.Fatal(err)
	}
	f.wait(t, "p", phase(api.PhaseRunning))
}

// TestOlderServer: a server that says nothing about the data of a Managed volume gets a message, and no volume is created.
func TestOlderServer(t *testing.T) {
	f := newFaked(t)
	f.run(t)
	f.put("p", services("web"))
	f.wait(t, "p", phase(api.PhaseRunning))
	f.edit("p", func(p *carav1.Project) {
		p.Spec, p.Metadata.Generation, p.Status.Phase = withData("web"), 2, api.PhaseScheduled
	})
	f.wait(t, "p", func(p *carav1.Project) bool {
		return strings.Contains(api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage(), "update cara-server")
	})
	waitUntil(t, func() bool { return len(f.volumes(t)) > 0 })
	if got := slices.Collect(maps.Keys(f.volumes(t))); !slices.Equal(got, []string{"cara-p.cache"}) {
		t.Errorf("volumes %v", got)
	}
}

// TestSweepLeavesData: the sweep of orphans removes no Managed volume. Objects without a project cause no sweep of others. The
// data of a node with another name, and of another cluster, is neither reported nor removed.
func TestSweepLeavesData(t *testing.T) {
	f := newFaked(t)
	labels := map[string]string{api.LabelCluster: "c1", api.LabelNode: "n1", api.LabelVolume: "old.data", api.LabelVolumeUID: "u1"}
	for name, l := range map[string]map[string]string{
		"cara-old.data-u1": labels, "odd": {api.LabelCluster: "c1", api.LabelNode: "n1"},
		"renamed": {api.LabelCluster: "c1", api.LabelNode: "n0", api.LabelVolume: "old.data", api.LabelVolumeUID: "u2"},
		"rebuilt": {api.LabelCluster: "c0", api.LabelNode: "n1", api.LabelVolume: "old.data", api.LabelVolumeUID: "u3"},
		"orphan":  {api.LabelCluster: "c1", api.LabelNode: "n1", api.LabelProject: "orphan", api.LabelUID: "u", api.LabelEpoch: "1"},
	} {
		if err := f.engine.CreateVolume(t.Context(), name, l); err != nil {
			t.Fatal(err)
		}
	}
	before := f.up(t, withData("web"))
	waitUntil(t, func() bool { return f.told(api.ReasonOrphansSwept) > 0 })
	seen := f.engine.Calls("ListNetworks")
	waitUntil(t, func() bool { return f.engine.Calls("ListNetworks") > seen+10 })
	got := slices.Sorted(maps.Keys(f.volumes(t)))
	if want := []string{"cara-old.data-u1", "cara-p.cache", dataName("p", "data"), "odd", "rebuilt", "renamed"}; !slices.Equal(got, want) {
		t.Errorf("volumes %v, want %v", got, want)
	}
	if diff := cmp.Diff(ids(before), ids(f.containers(t))); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
	held, _ := f.holds()
	if held["u1"].GetProject() != "old" || len(held) != 2 {
		t.Errorf("inventory %v", held)
	}
}

// TestInventoryOnEachConnection: the first heartbeat of a connection has the inventory, and later ones only what is new.
func TestInventoryOnEachConnection(t *testing.T) {
	f := newFaked(t)
	f.up(t, withData("web"))
	f.wait(t, "p", func(p *carav1.Project) bool { return api.VolumeUse(p, "data").GetMade() })
	f.away(true)
	waitUntil(t, func() bool { return f.refusals() > 0 })
	f.mu.Lock()
	from := len(f.beats)
	f.mu.Unlock()
	f.away(false)
	waitUntil(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.beats) > from+2 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := f.beats[from].GetVolumes().GetVolumes(); len(got) != 1 || got[0].GetUid() != volumeUID("p", "data") {
		t.Errorf("the first heartbeat has the volumes %v", got)
	}
	if got := f.beats[from+2].GetVolumes(); got != nil {
		t.Errorf("the third heartbeat repeats the volumes %v", got)
	}
}

// TestVolumeSizes: the sizes of volumes are in the inventory and the metrics, and a full disk's condition names the largest.
func TestVolumeSizes(t *testing.T) {
	f := newFaked(t)
	root := t.TempDir()
	f.engine.Root(root)
	dir := filepath.Join(root, "volumes")
	if err := os.MkdirAll(filepath.Join(dir, dataName("p", "data"), "_data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, dataName("p", "data"), "_data", "file"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f.engine.MountVolumes(dir)
	f.cfg.MeasureEvery, f.cfg.Limits.DiskPressure = 100*time.Millisecond, 0.000001
	f.up(t, withData("web"))
	size := func() int64 {
		held, _ := f.holds()
		return held[volumeUID("p", "data")].GetSizeBytes()
	}
	waitUntil(t, func() bool { return size() >= 3<<20 && size() < 4<<20 })
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		c := api.FindCondition(f.beats[len(f.beats)-1].GetConditions(), api.CondDiskPressure)
		return c.GetStatus() == api.StatusTrue && strings.Contains(c.GetMessage(), "the largest volumes on it: p.data (3 MiB)")
	})
	if got := gathered(t, f)["cara_agent_volume_bytes p data"]; got < 3<<20 {
		t.Errorf("metric %v", got)
	}
	if err := os.Remove(filepath.Join(dir, dataName("p", "data"), "_data", "file")); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return size() > 0 && size() < 1<<20 })
}
