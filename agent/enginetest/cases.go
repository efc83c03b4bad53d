package enginetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func life(t *testing.T, s *suite) {
	n := s.network(t)
	id := s.create(t, "-after", "1h")
	if c := s.inspect(t, id); c.State != engine.StateCreated || !c.StartedAt.IsZero() || c.Name != s.spec().Name {
		t.Errorf("created: %+v", c)
	}
	listed, err := s.Engine.ListContainers(t.Context(), s.labels)
	must(t, err)
	inspected := s.inspect(t, id)
	created := inspected.CreatedAt
	inspected.Grace, inspected.CreatedAt = nil, created.Truncate(time.Second).UTC()
	for i := range listed {
		listed[i].Grace, listed[i].CreatedAt = nil, listed[i].CreatedAt.Truncate(time.Second).UTC()
	}
	if diff := cmp.Diff([]engine.Container{inspected}, listed); diff != "" { // as the agent does not inspect it
		t.Errorf("a container that was never started (-inspected +listed):\n%s", diff)
	}
	must(t, s.Engine.StartContainer(t.Context(), id))
	must(t, s.Engine.StartContainer(t.Context(), id)) // already running: no error
	c := s.inspect(t, id)
	at := c.Networks[s.name()]
	if c.State != engine.StateRunning || c.StartedAt.IsZero() || at.IP == "" || at.NetworkID != n.ID {
		t.Errorf("running: %+v", c)
	}
	if !c.CreatedAt.Equal(created) || !c.CreatedAt.Before(c.StartedAt) || c.Image != s.Image {
		t.Errorf("made at %s, later %s, of %s: %+v", created, c.CreatedAt, s.Image, c)
	}
	list, err := s.Engine.ListContainers(t.Context(), map[string]string{api.LabelCluster: s.labels[api.LabelCluster]})
	must(t, err)
	if len(list) != 1 || list[0].ID != id || list[0].State != engine.StateRunning || list[0].Labels[api.LabelProject] != s.project {
		t.Errorf("listed: %+v", list)
	}
	lost, err := s.Engine.KillLost(t.Context(), s.labels)
	must(t, err)
	if now := s.inspect(t, id); len(lost) != 0 || now.State != engine.StateRunning || now.PID != c.PID {
		t.Errorf("killed %+v as lost, and then: %+v", lost, now)
	}
	must(t, s.Engine.StopContainer(t.Context(), id, time.Second))
	must(t, s.Engine.StopContainer(t.Context(), id, time.Second)) // already stopped: no error
	if c := s.inspect(t, id); c.State != engine.StateExited || c.FinishedAt.Before(c.StartedAt) {
		t.Errorf("stopped: %+v", c)
	}
	must(t, s.Engine.StartContainer(t.Context(), id))
	if again := s.inspect(t, id); !again.CreatedAt.Equal(created) {
		t.Errorf("made at %s, after a restart %s", created, again.CreatedAt)
	}
	must(t, s.Engine.RemoveContainer(t.Context(), id)) // running
	must(t, s.Engine.RemoveContainer(t.Context(), id)) // does not exist: no error
	_, err = s.Engine.InspectContainer(t.Context(), id)
	wantErr(t, err, engine.ErrNotFound)
}

func exits(t *testing.T, s *suite) {
	s.network(t)
	id := s.start(t, "-exit", "7")
	waitFor(t, func() bool { return s.inspect(t, id).State == engine.StateExited })
	if c := s.inspect(t, id); c.ExitCode != 7 || c.FinishedAt.IsZero() || c.Networks[s.name()].IP != "" {
		t.Errorf("exited: %+v", c)
	}
}

// limits checks that limits can be changed and added while a container runs, and that 0 leaves a limit unchanged.
func limits(t *testing.T, s *suite) {
	s.network(t)
	spec := s.spec("-after", "1h")
	spec.Service.Resources = &carav1.Resources{Limits: &carav1.ResourceList{Memory: "64Mi", Pids: 50}}
	id, err := s.Engine.CreateContainer(t.Context(), spec)
	must(t, err)
	must(t, s.Engine.StartContainer(t.Context(), id))
	before := s.inspect(t, id)
	if want := (engine.Limits{Memory: 64 << 20, PIDs: 50}); before.Limits != want {
		t.Errorf("limits %+v, want %+v", before.Limits, want)
	}
	for _, to := range []engine.Limits{{NanoCPUs: 5e8, Memory: 256 << 20, PIDs: 60}, {NanoCPUs: 1e9, Memory: 32 << 20, PIDs: 40}} {
		must(t, s.Engine.UpdateContainer(t.Context(), id, to))
		if c := s.inspect(t, id); c.Limits != to || !c.StartedAt.Equal(before.StartedAt) || c.State != engine.StateRunning {
			t.Errorf("updated to %+v: %+v", to, c)
		}
	}
	must(t, s.Engine.UpdateContainer(t.Context(), id, engine.Limits{NanoCPUs: 2e9}))
	if c := s.inspect(t, id); c.Limits != (engine.Limits{NanoCPUs: 2e9, Memory: 32 << 20, PIDs: 40}) {
		t.Errorf("a limit that was not given: %+v", c.Limits)
	}
	wantErr(t, s.Engine.UpdateContainer(t.Context(), "nothing", engine.Limits{NanoCPUs: 2e9}), engine.ErrNotFound)
}

func takenName(t *testing.T, s *suite) {
	id := s.create(t)
	if again := s.create(t); again != id {
		t.Errorf("created again as %s, want %s adopted", again, id)
	}
	spec := s.spec()
	spec.Labels = s.older()
	spec.Labels[api.LabelEpoch] = "2"
	if _, err := s.Engine.CreateContainer(t.Context(), spec); err == nil || errors.Is(err, engine.ErrForeign) {
		t.Errorf("an older one of ours: %v, want an error that is not ErrForeign", err)
	}
	spec.Labels = s.foreign()
	_, err := s.Engine.CreateContainer(t.Context(), spec)
	wantErr(t, err, engine.ErrForeign)
}

func networks(t *testing.T, s *suite) {
	n := s.network(t)
	if again := s.network(t); again.ID != n.ID {
		t.Errorf("made again as %s, want %s adopted", again.ID, n.ID)
	}
	other, err := s.Engine.CreateNetwork(t.Context(), s.name()+"-other", s.labels, 3)
	must(t, err)
	if other.Subnet == n.Subnet || other.Subnet == "" {
		t.Errorf("subnets %q and %q", n.Subnet, other.Subnet)
	}
	_, err = s.Engine.CreateNetwork(t.Context(), s.name(), s.foreign(), 3)
	wantErr(t, err, engine.ErrForeign)
	if _, err = s.Engine.CreateNetwork(t.Context(), s.name(), s.older(), 3); err == nil || errors.Is(err, engine.ErrForeign) {
		t.Errorf("an older one of ours: %v", err)
	}
	list, err := s.Engine.ListNetworks(t.Context(), s.labels)
	must(t, err)
	if len(list) != 2 {
		t.Errorf("listed %+v", list)
	}
	must(t, s.Engine.RemoveNetwork(t.Context(), n.ID))
	must(t, s.Engine.RemoveNetwork(t.Context(), n.ID))
}

// busyNetwork checks a network with someone else's container: both stay, and the error names the container.
func busyNetwork(t *testing.T, s *suite) {
	n := s.network(t)
	spec := s.spec("-after", "1h")
	spec.Labels, spec.Name = s.foreign(), s.name()+".guest"
	id, err := s.Engine.CreateContainer(t.Context(), spec)
	must(t, err)
	must(t, s.Engine.StartContainer(t.Context(), id))
	if err := s.Engine.RemoveNetwork(t.Context(), n.ID); err == nil || !strings.Contains(err.Error(), s.name()+".guest") {
		t.Errorf("a network in use: %v", err)
	}
	if c := s.inspect(t, id); c.State != engine.StateRunning || c.Networks[s.name()].IP == "" {
		t.Errorf("the guest: %+v", c)
	}
	must(t, s.Engine.StopContainer(t.Context(), id, 0))
	must(t, s.Engine.RemoveContainer(t.Context(), id))
	must(t, s.Engine.RemoveNetwork(t.Context(), n.ID))
}

func volumes(t *testing.T, s *suite) {
	must(t, s.Engine.CreateVolume(t.Context(), s.name()+".v", s.labels))
	must(t, s.Engine.CreateVolume(t.Context(), s.name()+".v", s.labels))
	wantErr(t, s.Engine.CreateVolume(t.Context(), s.name()+".v", s.foreign()), engine.ErrForeign)
	if err := s.Engine.CreateVolume(t.Context(), s.name()+".v", s.older()); err == nil || errors.Is(err, engine.ErrForeign) {
		t.Errorf("an older one of ours: %v", err)
	}
	list, err := s.Engine.ListVolumes(t.Context(), s.labels)
	must(t, err)
	if len(list) != 1 || list[0].Labels[api.LabelUID] != "u1" {
		t.Errorf("listed %+v", list)
	}
	spec := s.spec()
	spec.Service.VolumeMounts = []*carav1.VolumeMount{{Name: "v", MountPath: "/v"}}
	spec.Volumes = map[string]engine.Source{"v": {Volume: s.name() + ".v"}}
	id, err := s.Engine.CreateContainer(t.Context(), spec)
	must(t, err)
	if err := s.Engine.RemoveVolume(t.Context(), s.name()+".v"); err == nil {
		t.Error("a volume in use was removed")
	}
	must(t, s.Engine.RemoveContainer(t.Context(), id))
	must(t, s.Engine.RemoveVolume(t.Context(), s.name()+".v"))
	must(t, s.Engine.RemoveVolume(t.Context(), s.name()+".v"))
}

func beforeNetwork(t *testing.T, s *suite) {
	id := s.create(t, "-after", "1h")
	if err := s.Engine.StartContainer(t.Context(), id); err == nil {
		t.Error("started without its network")
	}
	if c := s.inspect(t, id); c.State == engine.StateRunning || !c.StartedAt.IsZero() {
		t.Errorf("not started: %+v", c)
	}
	n := s.network(t)
	must(t, s.Engine.StartContainer(t.Context(), id))
	if at := s.inspect(t, id).Networks[s.name()]; at.NetworkID != n.ID || at.IP == "" {
		t.Errorf("attached %+v, want to %s", at, n.ID)
	}
}

func gone(t *testing.T, s *suite) {
	_, err := s.Engine.InspectContainer(t.Context(), s.name())
	wantErr(t, err, engine.ErrNotFound)
	wantErr(t, s.Engine.StartContainer(t.Context(), s.name()), engine.ErrNotFound)
	wantErr(t, s.Engine.Logs(t.Context(), s.name(), engine.LogOptions{}, func(engine.LogLine) error { return nil }), engine.ErrNotFound)
	must(t, s.Engine.StopContainer(t.Context(), s.name(), time.Second))
	must(t, s.Engine.RemoveVolume(t.Context(), s.name()))
}

func images(t *testing.T, s *suite) {
	image, err := s.Engine.InspectImage(t.Context(), s.Image)
	must(t, err)
	if image.ID == "" {
		t.Errorf("image %+v", image)
	}
	if byID, err := s.Engine.InspectImage(t.Context(), image.ID); err != nil || byID.ID != image.ID {
		t.Errorf("by its id: %+v, %v", byID, err)
	}
	const half = len("sha256:") + 16
	for _, ref := range []string{"localhost:1/nothing:here", image.ID[:half], image.ID[len("sha256:"):half]} { // no part of an id is a name
		_, err = s.Engine.InspectImage(t.Context(), ref)
		wantErr(t, err, engine.ErrNotFound)
	}
	spec := s.spec()
	spec.Service.Image = "localhost:1/nothing:here"
	_, err = s.Engine.CreateContainer(t.Context(), spec)
	wantErr(t, err, engine.ErrNotFound)
	if _, err := s.Engine.PullImage(t.Context(), "localhost:1/nothing:here", nil, func(engine.Progress) {}); !errors.Is(err, engine.ErrRegistry) && !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("pull of nothing: %v", err)
	}
}

func imageStore(t *testing.T, s *suite) {
	s.network(t)
	image, err := s.Engine.InspectImage(t.Context(), s.Image)
	must(t, err)
	id := s.create(t)
	if c := s.inspect(t, id); c.ImageID != image.ID {
		t.Errorf("a container of image %s says %s", image.ID, c.ImageID)
	}
	if err := s.Engine.RemoveImage(t.Context(), s.Image); err == nil {
		t.Error("an image in use was removed")
	}
	stored, err := s.Engine.ListImages(t.Context())
	must(t, err)
	i := slices.IndexFunc(stored, func(i engine.StoredImage) bool { return i.ID == image.ID })
	if i < 0 || !slices.Contains(stored[i].Tags, s.Image) || stored[i].Size <= 0 {
		t.Errorf("image %s is not in %+v", image.ID, stored)
	}
	must(t, s.Engine.RemoveImage(t.Context(), "localhost:1/nothing:here"))
}

func logs(t *testing.T, s *suite) {
	s.network(t)
	id := s.start(t, "-lines", "5", "-exit", "1")
	waitFor(t, func() bool { return s.inspect(t, id).State == engine.StateExited })
	read := func(o engine.LogOptions) (out []engine.LogLine) {
		must(t, s.Engine.Logs(t.Context(), id, o, func(l engine.LogLine) error {
			out = append(out, l)
			return nil
		}))
		return out
	}
	all := read(engine.LogOptions{Follow: true})
	for _, l := range all { // the two output streams may interleave in any order
		if l.Stderr != strings.HasSuffix(l.Text, ": exit 1") || l.Time.IsZero() {
			t.Errorf("line %+v", l)
		}
	}
	if len(all) != 6 {
		t.Errorf("all: %+v", all)
	}
	if last := read(engine.LogOptions{Tail: 1}); len(last) != 1 || last[0] != all[5] {
		t.Errorf("the last: %+v", last)
	}
	if none := read(engine.LogOptions{Tail: -1}); len(none) != 0 {
		t.Errorf("none: %+v", none)
	}
	stop := errors.New("enough")
	wantErr(t, s.Engine.Logs(t.Context(), id, engine.LogOptions{}, func(engine.LogLine) error { return stop }), stop)
}

func events(t *testing.T, s *suite) {
	s.network(t)
	id := s.create(t, "-after", "1h")
	ctx, cancel := context.WithCancel(t.Context())
	subscribed := make(chan struct{})
	heard := make(chan engine.Event, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Engine.Events(ctx, s.labels, func() { close(subscribed) }, func(e engine.Event) { heard <- e })
	}()
	<-subscribed
	must(t, s.Engine.StartContainer(t.Context(), id))
	must(t, s.Engine.StopContainer(t.Context(), id, time.Second))
	want := map[string]bool{"start": true, "die": true}
	for len(want) > 0 {
		select {
		case e := <-heard:
			// The engine's network events have no labels, so those of other clusters arrive too.
			switch network := e.Action == "disconnect" || e.Action == "destroy"; {
			case e.Project == s.project:
				delete(want, e.Action)
			case !network:
				t.Errorf("heard %+v", e)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not heard: %v", want)
		}
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("events ended without an error")
	}
}

func noAnswer(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Engine.InspectContainer(ctx, s.name())
	if err == nil || errors.Is(err, engine.ErrNotFound) {
		t.Errorf("a call that was given up says %v", err)
	}
	if _, err := s.Engine.ListContainers(ctx, s.labels); err == nil {
		t.Error("a list that was given up is a list")
	}
}

func machine(t *testing.T, s *suite) {
	must(t, s.Engine.Ping(t.Context()))
	info, err := s.Engine.Info(t.Context())
	must(t, err)
	if info.CPUs < 1 || info.Memory < 1 || !strings.HasPrefix(info.Platform, "linux/") || info.Version == "" {
		t.Errorf("info %+v", info)
	}
	if s.Engine.SubnetCapacity() < 1 {
		t.Error("no subnets")
	}
}
