package step

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// world is a minimal engine for Step.
type world struct {
	leaving    map[string]time.Time
	now        time.Time
	next       int
	networks   []engine.Network
	volumes    []engine.Volume
	data       []engine.Volume   // Managed volumes
	absent     map[string]string // Host volumes whose path is missing, with the reason
	containers []engine.Container
	images     map[string]bool
	taken      map[string]bool // names that something foreign has
	memory     Memory
	record     Record
	moving     Moving
	missing    map[string]Pull   // images that cannot be pulled
	rigid      bool              // it cannot change limits
	broken     map[string]string // services whose containers fail, those that are as wanted: crash or sick
	warm       time.Duration     // how long a container takes to be healthy
	unprobed   bool              // no check has ended yet
}

func newWorld() *world {
	return &world{
		now: time.Unix(1_800_000_000, 0), images: map[string]bool{}, taken: map[string]bool{}, broken: map[string]string{},
		memory: Memory{Pulls: map[string]Pull{}, Restarts: map[string]Restarts{}, Tries: map[string]Try{}},
	}
}

func (e *world) have(w *Want) *Have {
	h := &Have{
		Networks: slices.Clone(e.networks), Volumes: slices.Clone(e.volumes), Managed: slices.Clone(e.data), Missing: e.absent, Containers: slices.Clone(e.containers),
		Images: maps.Clone(e.images), Health: map[string]Health{}, Memory: e.memory.Snapshot(), Leaving: e.leaving, Record: e.record, Moving: e.moving,
	}
	for _, c := range e.containers {
		switch {
		case c.State != engine.StateRunning || e.unprobed:
		case e.fails(w, c) == "sick":
			h.Health[c.ID] = Health{State: api.HealthUnhealthy}
		case e.now.Sub(c.StartedAt) < e.warm:
			h.Health[c.ID] = Health{State: api.HealthStarting}
		default:
			h.Health[c.ID] = Health{State: api.HealthHealthy, Ever: true}
		}
	}
	return h
}

// fails says how a container of a broken service fails; one that is not as wanted any more does not.
func (e *world) fails(w *Want, c engine.Container) string {
	s := &view{w: w, h: &Have{Memory: e.memory, Record: e.record}}
	if svc := w.Service(c.Labels[api.LabelService]); svc == nil || s.outdated(svc, &c) != "" {
		return ""
	}
	return e.broken[c.Labels[api.LabelService]]
}

func (e *world) id() string {
	e.next++
	return fmt.Sprintf("id%03d", e.next)
}

func (e *world) container(id string) *engine.Container {
	for i := range e.containers {
		if e.containers[i].ID == id {
			return &e.containers[i]
		}
	}
	return nil
}

// do executes actions like the agent, on this engine.
func (e *world) do(w *Want, actions []Action) {
	soonest := time.Duration(0)
	e.record = e.record.Next(w, e.have(w), actions, e.now)
	var first Action
	if i := slices.IndexFunc(actions, func(a Action) bool { return a.Kind == KindFail }); i >= 0 {
		first = actions[i]
	}
	for _, a := range actions {
		if a.Kind == KindWait {
			if d := a.Until.Sub(e.now); !a.Until.IsZero() && (soonest == 0 || d < soonest) {
				soonest = d
			}
			continue
		}
		if a.Kind == KindFail { // the agent takes the first, and looks again
			if a != first {
				continue
			}
			if a.Failure.Update && e.memory.Update == nil {
				e.memory.Update = a.Failure
			} else if e.memory.Failure == nil {
				e.memory.Failure = a.Failure
			}
			continue
		}
		if a.Kind == KindPull {
			if pull, missing := e.missing[a.Name]; missing {
				e.memory.Pulls[a.Name] = pull
				continue
			}
			e.images[a.Name] = true
			e.memory.Pulls[a.Name] = Pull{Done: true}
			continue
		}
		err := e.act(w, a)
		e.memory.Remember(w, e.have(w), a, err, e.now)
	}
	pause := 10 * time.Millisecond
	if !slices.ContainsFunc(actions, func(a Action) bool { return a.Kind != KindWait }) {
		pause = 250 * time.Millisecond
	}
	e.now = e.now.Add(max(soonest, pause))
	for i := len(e.containers) - 1; i >= 0; i-- {
		c := &e.containers[i]
		switch {
		case c.State == engine.StateRemoving:
			e.containers = slices.Delete(e.containers, i, i+1)
		case c.State == engine.StateRunning && e.fails(w, *c) == "crash":
			c.State, c.FinishedAt, c.ExitCode = engine.StateExited, e.now, 1
		case c.State == engine.StateRunning && w.Service(c.Labels[api.LabelService]).GetImage() == "job":
			c.State, c.FinishedAt = engine.StateExited, e.now
		}
	}
}

func (e *world) act(w *Want, a Action) error {
	c := e.container(a.ID)
	switch a.Kind {
	case KindCreateNetwork:
		if e.taken[a.Name] {
			return engine.ErrForeign
		}
		e.networks = append(e.networks, engine.Network{ID: e.id(), Name: a.Name, Labels: w.Owner()})
	case KindRemoveNetwork:
		if slices.ContainsFunc(e.containers, func(c engine.Container) bool { return up(c) && c.Networks[a.Name].NetworkID == a.ID }) {
			return fmt.Errorf("network %s has active endpoints", a.ID)
		}
		e.networks = slices.DeleteFunc(e.networks, func(n engine.Network) bool { return n.ID == a.ID })
	case KindCreateVolume:
		v := engine.Volume{Name: a.Name, Labels: w.VolumeLabels(a.Name)}
		if v.Labels[api.LabelVolumeUID] != "" {
			e.data = append(e.data, v)
		} else {
			e.volumes = append(e.volumes, v)
		}
	case KindRemoveVolume:
		if slices.ContainsFunc(e.data, func(v engine.Volume) bool { return v.Name == a.Name }) {
			return fmt.Errorf("the removal of the Managed volume %s", a.Name)
		}
		e.volumes = slices.DeleteFunc(e.volumes, func(v engine.Volume) bool { return v.Name == a.Name })
	case KindCreateContainer:
		if e.taken[a.Name] {
			return engine.ErrForeign
		}
		if slices.ContainsFunc(e.containers, func(c engine.Container) bool { return c.Name == a.Name }) {
			return fmt.Errorf("name %s in use", a.Name)
		}
		limits, err := engine.LimitsOf(w.Service(a.Service))
		if err != nil {
			return err
		}
		if e.rigid {
			limits.Memory = 0 // a kernel without them
		}
		e.containers = append(e.containers, engine.Container{
			ID: e.id(), CreatedAt: e.now, Limits: limits, Name: a.Name, State: engine.StateCreated, Labels: w.containerLabels(w.Service(a.Service)),
			Networks: map[string]engine.Attachment{NetworkName(w.Project): {}}, Mounts: w.mounts(w.Service(a.Service)),
		})
	case KindStartContainer, KindRestartContainer:
		if len(e.networks) != 1 {
			return fmt.Errorf("no network, or an ambiguous one")
		}
		c.State, c.StartedAt, c.ExitCode = engine.StateRunning, e.now, 0
		c.Networks = map[string]engine.Attachment{NetworkName(w.Project): {NetworkID: e.networks[0].ID, IP: "10.0.0.2"}}
	case KindUpdateContainer:
		if e.rigid {
			return errors.New("the engine cannot update")
		}
		if c.State == engine.StateRemoving || c.State == engine.StateDead {
			return errors.New("update of a container that goes")
		}
		limits, err := engine.LimitsOf(w.Service(a.Service))
		if err != nil || !c.Limits.InPlace(limits) {
			return fmt.Errorf("update from %v to %v: %w", c.Limits, limits, err)
		}
		c.Limits = limits
	case KindRenameContainer:
		if slices.ContainsFunc(e.containers, func(c engine.Container) bool { return c.Name == a.Name && c.ID != a.ID }) {
			return fmt.Errorf("name %s in use", a.Name)
		}
		c.Name = a.Name
	case KindUnpauseContainer:
		c.State = engine.StateRunning
	case KindConnectContainer:
		c.Networks = map[string]engine.Attachment{NetworkName(w.Project): {NetworkID: e.networks[0].ID, IP: "10.0.0.2"}}
	case KindStopContainer:
		c.State, c.FinishedAt, c.ExitCode = engine.StateExited, e.now, 143
	case KindDeleteContainer:
		e.containers = slices.DeleteFunc(e.containers, func(c engine.Container) bool { return c.ID == a.ID })
	default:
		return fmt.Errorf("the world does not know %v", a)
	}
	return nil
}

// mounts returns the mounts of a new container of a service.
func (w *Want) mounts(svc *carav1.Service) map[string]engine.Source {
	out := map[string]engine.Source{}
	for _, m := range svc.GetVolumeMounts() {
		out[m.GetMountPath()] = w.source(m.GetName())
	}
	return out
}

// wanted returns a random project.
func wanted(r *rand.Rand) *Want {
	spec := &carav1.ProjectSpec{}
	if r.IntN(2) == 0 {
		spec.Volumes = append(spec.Volumes, &carav1.ProjectVolume{Name: "data", Type: []string{"", api.VolumeManaged}[r.IntN(2)]})
	}
	graph := r.IntN(2) == 0
	for i := range 1 + r.IntN(4) {
		s := &carav1.Service{Name: fmt.Sprintf("s%d", i), Image: "web"}
		if r.IntN(4) == 0 {
			s.Image, s.RestartPolicy = "job", []string{api.RestartOnFailure, api.RestartNever}[r.IntN(2)]
		} else if r.IntN(3) == 0 {
			s.Healthcheck = &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 80}}
		}
		if r.IntN(3) == 0 {
			s.Resources = limited([]string{"", "500m", "2"}[r.IntN(3)], []string{"", "64Mi", "1Gi"}[r.IntN(3)])
		}
		if len(spec.Volumes) > 0 && r.IntN(2) == 0 {
			s.VolumeMounts = []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}
		}
		if r.IntN(2) == 0 {
			s.Update = &carav1.Update{Order: api.UpdateStartFirst}
		}
		if graph && i > 0 {
			on := spec.Services[r.IntN(i)]
			d := &carav1.Dependency{Service: on.Name}
			if on.Image == "job" {
				d.Condition = api.DependsCompleted
			} else if on.Healthcheck != nil {
				d.Condition = api.DependsHealthy
			}
			s.DependsOn = append(s.DependsOn, d)
		}
		spec.Services = append(spec.Services, s)
	}
	return wantOf(spec)
}

func limited(cpu, memory string) *carav1.Resources {
	return &carav1.Resources{Limits: &carav1.ResourceList{Cpu: cpu, Memory: memory}}
}

func wantOf(spec *carav1.ProjectSpec) *Want {
	return NewWant(Node{Cluster: "c1", Name: "n1", Restart: RestartLimits{}.WithDefaults()}, &carav1.Assignment{Project: &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "shop", Uid: "u2", Generation: 3},
		Spec:     spec,
		Status:   &carav1.ProjectStatus{Phase: api.PhaseScheduled, Epoch: 7, Volumes: usesOf(spec)},
	}}, true)
}

// usesOf returns what the server says of the Managed volumes of a new project.
func usesOf(spec *carav1.ProjectSpec) []*carav1.VolumeUse {
	var out []*carav1.VolumeUse
	for _, v := range api.ManagedVolumes(spec) {
		out = append(out, &carav1.VolumeUse{Name: v.GetName(), Uid: "aaaaaaaa-" + v.GetName()})
	}
	return out
}

// askRestart requests a restart of some services, or of all if none is named.
func (w *Want) askRestart(token string, services ...string) {
	p := &carav1.Project{Spec: w.Spec, Status: &carav1.ProjectStatus{RestartToken: w.RestartToken, Restarts: w.Restarts}}
	w.Restarts, w.RestartToken = api.AddRestart(p, services, token), token
}

// scramble adds what crashes, manual changes and older assignments leave behind.
func (e *world) scramble(r *rand.Rand, w *Want) {
	label := func(labels map[string]string) map[string]string {
		switch r.IntN(6) {
		case 0:
			labels[api.LabelEpoch] = strconv.Itoa(int(w.Epoch) - 1)
		case 1:
			labels[api.LabelUID] = "u1"
		}
		return labels
	}
	if r.IntN(3) > 0 {
		e.networks = append(e.networks, engine.Network{ID: e.id(), Name: NetworkName(w.Project), Labels: label(w.Owner())})
	}
	if r.IntN(6) == 0 {
		e.networks = append(e.networks, engine.Network{ID: e.id(), Name: NetworkName(w.Project), Labels: w.Owner()})
	}
	for _, v := range append(w.Spec.GetVolumes(), &carav1.ProjectVolume{Name: "old"}) {
		if r.IntN(2) == 0 {
			e.volumes = append(e.volumes, engine.Volume{Name: volumeName(w.Project, v.GetName()), Labels: label(w.Owner())})
		}
	}
	for name, use := range w.Uses {
		e.data = append(e.data, engine.Volume{Name: api.EngineVolume(w.Project, name, "bbbbbbbb"), Labels: map[string]string{api.LabelVolumeUID: "bbbbbbbb"}})
		if r.IntN(2) == 0 {
			use.Made = r.IntN(2) == 0
			e.data = append(e.data, engine.Volume{Name: w.source(name).Volume, Labels: w.VolumeLabels(w.source(name).Volume)})
		}
	}
	services := append(slices.Clone(w.Spec.GetServices()), &carav1.Service{Name: "left"})
	for range r.IntN(7) {
		s := services[r.IntN(len(services))]
		c := engine.Container{ID: e.id(), Labels: label(w.containerLabels(s)), Networks: map[string]engine.Attachment{}}
		c.Name = containerName(w.Project, s.GetName())
		if r.IntN(2) == 0 && (len(w.Uses) == 0 || len(e.data) > 1) { // the engine removes no volume that is mounted
			c.Mounts = w.mounts(s)
		}
		taken := func(o engine.Container) bool { return o.Name == c.Name }
		if slices.ContainsFunc(e.containers, taken) || r.IntN(4) == 0 {
			c.Name = successorName(w.Project, s.GetName())
		}
		if slices.ContainsFunc(e.containers, taken) {
			c.Name = "renamed-" + c.ID
		}
		if r.IntN(4) == 0 {
			c.Labels[api.LabelSpecHash] = "v1:old"
			if r.IntN(2) == 0 {
				c.Labels[labelRunHash] = "v1:old"
			}
		}
		if r.IntN(8) == 0 {
			delete(c.Labels, labelRunHash) // of an older agent
		}
		if limits, err := engine.LimitsOf(s); err == nil && r.IntN(4) > 0 {
			c.Limits = limits
		} else if r.IntN(2) == 0 {
			c.Limits = engine.Limits{NanoCPUs: 1e9, Memory: 1 << 29}
		}
		c.State = []string{engine.StateCreated, engine.StateRunning, engine.StateRunning, engine.StatePaused, engine.StateExited, engine.StateExited, engine.StateRemoving, engine.StateDead}[r.IntN(8)]
		c.CreatedAt = e.now.Add(-time.Hour - time.Duration(r.IntN(5))*time.Second)
		if c.State != engine.StateCreated {
			c.StartedAt = e.now.Add(-time.Duration(r.IntN(3600)) * time.Second)
		}
		if c.State == engine.StateExited {
			c.FinishedAt, c.ExitCode = e.now.Add(-time.Second), []int32{0, 1, 137}[r.IntN(3)]
		}
		switch r.IntN(4) {
		case 0:
			c.Networks[NetworkName(w.Project)] = engine.Attachment{NetworkID: "gone"}
		case 1, 2:
			at := engine.Attachment{}
			if len(e.networks) > 0 && c.State != engine.StateCreated {
				at.NetworkID, at.IP = e.networks[0].ID, "10.0.0.2"
			}
			c.Networks[NetworkName(w.Project)] = at
		}
		e.containers = append(e.containers, c)
	}
	e.images["web"] = r.IntN(2) == 0
	e.rigid = r.IntN(4) == 0
	e.warm = time.Duration(r.IntN(3)) * time.Second
	if r.IntN(8) == 0 {
		e.taken[containerName(w.Project, "s0")] = true
		e.containers = slices.DeleteFunc(e.containers, func(c engine.Container) bool { return c.Name == containerName(w.Project, "s0") })
	}
}
