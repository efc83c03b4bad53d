package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// inventory knows all Managed volumes in the engine, used or not. Heartbeats tell the server about them, and inventory
// removes the ones that the server asks to remove. Nothing else removes a Managed volume. Invariants: the server gets an
// inventory only if the engine answered, a newer inventory is of a later listing, and a volume that an assignment uses is
// never removed.
type inventory struct {
	cfg         Config
	log         *slog.Logger
	assignments *assignments
	disk        *disk
	beat        chan<- struct{} // requests a heartbeat
	wake        chan struct{}   // requests a listing
	due         chan struct{}   // tells measure that there are other volumes
	known       chan struct{}   // closed after the first listing

	mu       sync.Mutex
	volumes  []engine.Volume // of the last listing, by name
	version  int             // of what the server is told; 0 before the first listing
	sizes    map[string]size // by uid
	removals map[string]*removal
	restored map[string]*carav1.RestoredVolume // by uid
}

// removal is a volume that the server wants to be removed.
type removal struct {
	*carav1.RemoveVolume
	told string // the last error in the log
}

// maxUID and maxOwner are what the server accepts in a heartbeat.
const (
	maxUID   = 64
	maxOwner = 128
)

// removalPause is how often the removal of a volume is tried while something still uses it.
const removalPause = time.Second

func newInventory(cfg Config, log *slog.Logger, a *assignments, d *disk, beat chan<- struct{}) *inventory {
	return &inventory{
		cfg: cfg, log: log, assignments: a, disk: d, beat: beat, wake: make(chan struct{}, 1), due: make(chan struct{}, 1), known: make(chan struct{}),
		sizes: map[string]size{}, removals: map[string]*removal{}, restored: map[string]*carav1.RestoredVolume{},
	}
}

// run lists the volumes regularly and on request, until ctx ends.
func (i *inventory) run(ctx context.Context) error {
	for {
		again := i.cfg.Relist
		if err := i.list(ctx); err == nil && i.remove(ctx) {
			again = min(again, removalPause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-i.wake:
		case <-time.After(again):
		}
	}
}

// look requests a listing now.
func (i *inventory) look() { kick(i.wake) }

// list reads the volumes from the engine. If they changed, it requests a heartbeat, and a look at the projects concerned.
func (i *inventory) list(ctx context.Context) error {
	labels := i.cfg.node().Labels()
	labels[api.LabelVolume] = ""
	listed, err := i.cfg.Engine.ListVolumes(ctx, labels)
	if err != nil {
		return err
	}
	slices.SortFunc(listed, func(x, y engine.Volume) int { return strings.Compare(x.Name, y.Name) })
	i.mu.Lock()
	defer i.mu.Unlock()
	changed := changedVolumes(i.volumes, listed)
	i.volumes = listed
	if len(changed) > 0 || i.version == 0 {
		i.forgetUsed(listed)
	}
	switch {
	case i.version == 0:
		close(i.known)
	case len(changed) == 0:
		return nil
	}
	i.version++
	kick(i.beat)
	kick(i.due)
	for _, project := range changed {
		i.assignments.hint(project)
	}
	return nil
}

// usedFor is how long it is remembered at least that a volume was used.
const usedFor = time.Hour

// forgetUsed drops the marks of volumes that are gone.
func (i *inventory) forgetUsed(listed []engine.Volume) {
	held := map[string]bool{}
	for _, v := range listed {
		held[v.Labels[api.LabelVolumeUID]] = true
	}
	if err := i.disk.forgetUsed(held, time.Now().Add(-usedFor)); err != nil {
		i.log.Warn("the marks of volumes that are gone were not removed", "error", err)
	}
}

// changedVolumes returns the projects with a volume that is in one of two listings only.
func changedVolumes(before, now []engine.Volume) []string {
	identity := func(v engine.Volume) string { return v.Name + " " + v.Labels[api.LabelVolumeUID] }
	times, projects := map[string]int{}, map[string]bool{}
	all := slices.Concat(before, now)
	for _, v := range all {
		times[identity(v)]++
	}
	var out []string
	for _, v := range all {
		if project, _ := step.SplitVolume(v); times[identity(v)] == 1 && !projects[project] {
			projects[project] = true
			out = append(out, project)
		}
	}
	return out
}

// ask records that the server wants a volume to be removed. It asks again on each connection.
func (i *inventory) ask(r *carav1.RemoveVolume) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.removals[r.GetUid()] = &removal{RemoveVolume: r}
	i.look()
}

// forget drops the removals that the server of an ended connection asked for.
func (i *inventory) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.removals)
}

// remove removes the volumes that the server asked for and that nothing uses, and reports whether there are more to do.
func (i *inventory) remove(ctx context.Context) (more bool) {
	i.mu.Lock()
	due := maps.Clone(i.removals)
	i.mu.Unlock()
	for uid, r := range due {
		name := i.find(r)
		if name == "" {
			i.confirm(uid)
			continue
		}
		more = true
		if i.assignments.mayUse(uid) {
			continue
		}
		if r.GetUnused() && i.disk.isUsed(uid) {
			i.log.Error("refused to remove a volume that a project has used, as an unused copy", "volume", api.VolumeName(r.GetProject(), r.GetName()), "uid", uid)
			i.confirm(uid)
			continue
		}
		switch err := i.cfg.Engine.RemoveVolume(ctx, name); {
		case err == nil:
			i.log.Info("removed a volume", "volume", api.VolumeName(r.GetProject(), r.GetName()), "uid", uid)
			i.look() // the next listing confirms it
		case ctx.Err() == nil && err.Error() != r.told:
			r.told = err.Error()
			i.log.Warn("a volume cannot be removed yet", "volume", api.VolumeName(r.GetProject(), r.GetName()), "uid", uid, "error", err)
		}
	}
	return more
}

// find returns the engine's name of the volume of a removal, or an empty string if the engine does not have it.
func (i *inventory) find(r *removal) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, v := range i.volumes {
		if v.Labels[api.LabelVolumeUID] == r.GetUid() && v.Labels[api.LabelVolume] == api.VolumeName(r.GetProject(), r.GetName()) {
			return v.Name
		}
	}
	return ""
}

// confirm sends the inventory again, which shows what has become of the volume.
func (i *inventory) confirm(uid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.removals, uid)
	i.version++
	kick(i.beat)
}

// setRestored sets the state of the restore of a volume, or removes it. The server hears of it with the volume, and never before
// the first listing.
func (i *inventory) setRestored(uid string, state *carav1.RestoredVolume) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if state == nil {
		delete(i.restored, uid)
		return
	}
	i.restored[uid] = state
	if i.version > 0 {
		i.version++
		kick(i.beat)
	}
}

// news returns the inventory for the next heartbeat of a connection, and its version. It returns nil if the server was told
// this version on the connection, or if the engine was not listed yet.
func (i *inventory) news(told int) (*carav1.VolumeInventory, int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.version == told {
		return nil, told
	}
	out := &carav1.VolumeInventory{}
	for _, v := range i.volumes {
		project, name := step.SplitVolume(v)
		held := &carav1.HeldVolume{Uid: v.Labels[api.LabelVolumeUID], Project: project, Name: name, Owner: v.Labels[api.LabelOwner]}
		if !api.IsName(project) || !api.IsName(name) || held.GetUid() == "" || len(held.GetUid()) > maxUID || len(held.GetOwner()) > maxOwner {
			continue // not from an agent; the server would reject the heartbeat
		}
		held.Restored, held.Used = i.restored[held.GetUid()], i.disk.isUsed(held.GetUid())
		if s := i.sizes[held.GetUid()]; s.known {
			held.SizeBytes, held.SizeTime = &s.bytes, timestamppb.New(s.at)
		}
		out.Volumes = append(out.Volumes, held)
	}
	return out, i.version
}
