package enginetest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// data returns the labels of a Managed volume, which name no assignment.
func (s *suite) data() map[string]string {
	return map[string]string{
		api.LabelCluster: s.labels[api.LabelCluster], api.LabelNode: "n1", api.LabelVolume: s.project + ".data", api.LabelVolumeUID: "d1", api.LabelOwner: "",
	}
}

// mounting returns a container that mounts source at /data.
func (s *suite) mounting(source engine.Source) engine.ContainerSpec {
	spec := s.spec("-after", "1h")
	spec.Service.VolumeMounts = []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}
	spec.Volumes = map[string]engine.Source{"data": source}
	return spec
}

// managedVolume checks a volume that outlives its project: it is found by its own labels only, it cannot be removed while a
// container has it, and it has a directory.
func managedVolume(t *testing.T, s *suite) {
	name, project := s.name()+".data-d1", map[string]string{api.LabelCluster: s.labels[api.LabelCluster], api.LabelProject: ""}
	must(t, s.Engine.CreateVolume(t.Context(), name, s.data()))
	must(t, s.Engine.CreateVolume(t.Context(), name, s.data()))
	list := func(labels map[string]string) []engine.Volume {
		t.Helper()
		out, err := s.Engine.ListVolumes(t.Context(), labels)
		must(t, err)
		return out
	}
	if got := list(project); len(got) != 0 {
		t.Errorf("volumes of a project: %+v", got)
	}
	got := list(map[string]string{api.LabelCluster: s.labels[api.LabelCluster], api.LabelVolume: ""})
	if len(got) != 1 || got[0].Name != name {
		t.Fatalf("listed %+v", got)
	}
	if diff := cmp.Diff(s.data(), got[0].Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	inspected, err := s.Engine.InspectVolume(t.Context(), name)
	must(t, err)
	if diff := cmp.Diff(got[0], inspected); diff != "" {
		t.Errorf("a volume (-listed +inspected):\n%s", diff)
	}
	if s.Left != nil && !filepath.IsAbs(inspected.Mountpoint) { // the real engine
		t.Errorf("mountpoint %q", inspected.Mountpoint)
	}
	s.network(t)
	id, err := s.Engine.CreateContainer(t.Context(), s.mounting(engine.Source{Volume: name}))
	must(t, err)
	if diff := cmp.Diff(map[string]engine.Source{"/data": {Volume: name}}, s.inspect(t, id).Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	inUse := func(when string) {
		t.Helper()
		if err := s.Engine.RemoveVolume(t.Context(), name); err == nil || errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("the removal of a volume in use, %s: %v", when, err)
		}
	}
	inUse("by a container that never ran")
	must(t, s.Engine.StartContainer(t.Context(), id))
	inUse("by a container that runs")
	must(t, s.Engine.StopContainer(t.Context(), id, 0))
	inUse("by a container that has ended")
	must(t, s.Engine.RemoveContainer(t.Context(), id))
	if after, err := s.Engine.InspectVolume(t.Context(), name); err != nil || after.Labels[api.LabelVolumeUID] != "d1" {
		t.Errorf("after its container was removed: %+v, %v", after, err)
	}
	must(t, s.Engine.RemoveVolume(t.Context(), name))
	_, err = s.Engine.InspectVolume(t.Context(), name)
	wantErr(t, err, engine.ErrNotFound)
}

// missingVolume checks that the engine creates a volume that does not exist for its assignment only: it is never taken for
// data.
func missingVolume(t *testing.T, s *suite) {
	s.network(t)
	name := s.name() + ".data-d1"
	_, err := s.Engine.CreateContainer(t.Context(), s.mounting(engine.Source{Volume: name}))
	must(t, err)
	v, err := s.Engine.InspectVolume(t.Context(), name)
	must(t, err)
	if diff := cmp.Diff(s.labels, v.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// hostPath checks that a path of the host is mounted, for reading only if asked, and never created.
func hostPath(t *testing.T, s *suite) {
	s.network(t)
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	if _, err := s.Engine.CreateContainer(t.Context(), s.mounting(engine.Source{Path: gone})); err == nil || errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("a path that is missing: %v", err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the engine created the path: %v", err)
	}
	id, err := s.Engine.CreateContainer(t.Context(), s.mounting(engine.Source{Path: dir, ReadOnly: true}))
	must(t, err)
	must(t, s.Engine.StartContainer(t.Context(), id))
	if diff := cmp.Diff(map[string]engine.Source{"/data": {Path: dir, ReadOnly: true}}, s.inspect(t, id).Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	must(t, s.Engine.RemoveContainer(t.Context(), id))
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the path, after the container was removed: %v", err)
	}
}
