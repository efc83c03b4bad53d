package step

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// dataSpec has a Managed and an Ephemeral volume; db mounts the former.
func dataSpec() *carav1.ProjectSpec {
	return &carav1.ProjectSpec{
		Volumes: []*carav1.ProjectVolume{{Name: "data", Type: api.VolumeManaged}, {Name: "cache"}},
		Services: []*carav1.Service{
			{Name: "db", Image: "web", VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}},
			{Name: "web", Image: "web", VolumeMounts: []*carav1.VolumeMount{{Name: "cache", MountPath: "/cache"}}},
		},
	}
}

// dropData removes the Managed volumes from the engine.
func (e *world) dropData() { e.data = nil }

// use replaces what the server says of the Managed volume data.
func (w *Want) use(change func(*carav1.VolumeUse)) {
	u := &carav1.VolumeUse{Name: "data", Uid: w.Uses["data"].GetUid()}
	change(u)
	w.Uses = map[string]*carav1.VolumeUse{"data": u}
}

func TestManagedVolume(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Want, *world) // after the project is up
		want string              // of the next step
		says string              // in the reason of one of the actions
	}{
		"all is well":                       {},
		"the server knows that it was made": {edit: func(w *Want, _ *world) { w.use(func(u *carav1.VolumeUse) { u.Made = true }) }},
		"a container is created again on the same data": {
			edit: func(_ *Want, e *world) { e.containers = e.containers[1:] }, want: "CreateContainer db",
		},
		"an update recreates the container on the same data": {
			edit: func(w *Want, _ *world) { w.RunHashes["db"] = "v1:new" }, want: "DeleteContainer db",
		},
		"never made, and all is gone": {
			edit: func(_ *Want, e *world) {
				e.dropData()
				e.containers, e.record = nil, Record{}
			},
			want: "CreateVolume",
		},
		"an update gives back data that is on another node": {
			edit: func(w *Want, e *world) {
				e.dropData()
				w.use(func(u *carav1.VolumeUse) { u.Made, u.Node = true, "n2" })
				e.containers, e.record = nil, Record{}
			},
			want: "Wait, CreateContainer web", says: "the data of volume shop.data is on node n2",
		},
		"lost with its containers, and only the record knows": {
			edit: func(_ *Want, e *world) {
				e.dropData()
				e.containers = nil
			},
			want: "Fail, CreateContainer web", says: "the data of volume shop.data is lost: node n1 has no volume cara-shop.data-aaaaaaaa any more",
		},
		"lost with its containers, and only the server knows": {
			edit: func(w *Want, e *world) {
				e.dropData()
				w.use(func(u *carav1.VolumeUse) { u.Made = true })
				e.containers, e.record = nil, Record{}
			},
			want: "Fail, CreateContainer web", says: "caractrl recreate volume shop.data",
		},
		"lost, and the record is of an older assignment": {
			edit: func(w *Want, e *world) {
				e.dropData()
				e.containers, e.networks, e.volumes, w.Epoch = nil, nil, nil, w.Epoch+1
			},
			want: "Fail, CreateVolume",
		},
		"lost while an update needs a new container": {
			edit: func(w *Want, e *world) {
				e.dropData()
				e.containers, w.RunHashes["web"] = e.containers[1:], "v1:new"
			},
			want: "Fail, Wait web", says: "is not started on an empty one",
		},
		"a running container still mounts it": {
			edit: func(_ *Want, e *world) { e.dropData() }, want: "Wait", says: "although a running container mounts it",
		},
		"a stopped container does not keep it": {
			edit: func(_ *Want, e *world) {
				e.dropData()
				e.exit(0, 1)
			}, want: "Fail, RestartContainer db",
		},
		"the volume has the name, and is another": {
			edit: func(_ *Want, e *world) {
				e.data[0].Labels = map[string]string{api.LabelVolume: "shop.data", api.LabelVolumeUID: "aaaaaaaa-other"}
				e.containers = e.containers[1:]
			}, want: "Fail",
		},
		"replaced by an empty volume": {
			edit: func(w *Want, _ *world) { w.use(func(u *carav1.VolumeUse) { u.Uid = "cccccccc-new" }) },
			want: "CreateVolume, DeleteContainer db",
		},
		"the server does not know Managed volumes": {
			edit: func(w *Want, e *world) {
				w.Uses = map[string]*carav1.VolumeUse{}
				e.dropData()
				e.containers = e.containers[1:]
			}, want: "Wait", says: "update cara-server",
		},
		"a volume of an earlier type": {
			edit: func(w *Want, e *world) {
				e.volumes = append(e.volumes, engine.Volume{Name: "cara-shop.data", Labels: w.Owner()})
			}, want: "RemoveVolume",
		},
		"the volume leaves the manifest": {
			edit: func(w *Want, _ *world) {
				w.Spec.Volumes, w.Spec.Services[0].VolumeMounts = w.Spec.Volumes[1:], nil
				w.Uses = map[string]*carav1.VolumeUse{}
			},
		},
		"teardown": {
			edit: func(w *Want, e *world) { w.Remove, e.containers = true, nil }, want: "RemoveNetwork, RemoveVolume",
		},
		"an older assignment": {
			edit: func(w *Want, e *world) { w.Epoch, e.containers = w.Epoch+1, nil }, want: "RemoveNetwork, RemoveVolume",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, e := wantOf(dataSpec()), newWorld()
			e.images["web"] = true
			converge(t, e, w)
			if c.edit != nil {
				c.edit(w, e)
			}
			h := e.have(w)
			actions := Step(w, h, e.now)
			unharmed(t, w, h, nil, e.now)
			if got := kinds(actions); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
			var said []string
			for _, a := range actions {
				said = append(said, a.Reason)
				if a.Kind == KindFail && a.Failure.Reason != api.ReasonVolumeLost {
					t.Errorf("fails with %s", a.Failure.Reason)
				}
				if a.Kind == KindRemoveVolume && strings.Contains(a.Name, "aaaaaaaa") {
					t.Errorf("%v removes the data", a)
				}
			}
			if !strings.Contains(strings.Join(said, "; "), c.says) {
				t.Errorf("says %q, want %q", said, c.says)
			}
		})
	}
}

// TestManagedVolumeOutlivesProject: whatever ends, the data stays, and what is left belongs to no assignment.
func TestManagedVolumeOutlivesProject(t *testing.T) {
	for name, end := range map[string]func(*Want, *world) *Want{
		"deleted": func(w *Want, _ *world) *Want { w.Remove = true; return w },
		"not ours": func(w *Want, _ *world) *Want {
			return Unwanted(Node{Cluster: "c1", Name: "n1"}, w.Project, w.UID, w.Epoch)
		},
		"newer epoch":  func(w *Want, _ *world) *Want { w.Epoch++; return w },
		"another uid":  func(w *Want, _ *world) *Want { w.UID = "u3"; return w },
		"failed":       func(w *Want, e *world) *Want { e.memory.Failure = &Failure{}; return w },
		"out of sight": func(w *Want, e *world) *Want { e.forget(); return w },
	} {
		t.Run(name, func(t *testing.T) {
			w, e := wantOf(dataSpec()), newWorld()
			e.images["web"] = true
			converge(t, e, w)
			data := e.data[0]
			w = end(w, e)
			for range 30 {
				h := e.have(w)
				actions := Step(w, h, e.now)
				unharmed(t, w, h, actions, e.now)
				e.do(w, actions)
			}
			if diff := cmp.Diff([]engine.Volume{data}, e.data); diff != "" {
				t.Errorf("the data (-before +after):\n%s", diff)
			}
			if w.Remove && len(e.volumes)+len(e.containers)+len(e.networks) > 0 {
				t.Errorf("left: %v %v %v", e.volumes, e.containers, e.networks)
			}
		})
	}
}

// TestManagedVolumeLabels: a Managed volume has exactly these labels, and none that names an assignment.
func TestManagedVolumeLabels(t *testing.T) {
	w := wantOf(dataSpec())
	w.OwnedBy = "source/git"
	want := map[string]string{
		api.LabelCluster: "c1", api.LabelNode: "n1", api.LabelVolume: "shop.data", api.LabelVolumeUID: "aaaaaaaa-data", api.LabelOwner: "source/git",
	}
	if diff := cmp.Diff(want, w.VolumeLabels("cara-shop.data-aaaaaaaa")); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(w.Owner(), w.VolumeLabels("cara-shop.cache")); diff != "" {
		t.Errorf("labels of an Ephemeral volume (-want +got):\n%s", diff)
	}
}

// TestRecordOfMadeVolumes: the record knows a volume as soon as the engine has it, and never forgets it.
func TestRecordOfMadeVolumes(t *testing.T) {
	w, e := wantOf(dataSpec()), newWorld()
	e.images["web"] = true
	for len(e.data) == 0 {
		e.do(w, Step(w, e.have(w), e.now))
	}
	before, made := e.record, e.record.Next(w, e.have(w), nil, e.now)
	if before.Knows(w, made) || !made.Knows(w, made) || before.Same(made) {
		t.Errorf("record %+v after the volume was made, %+v before", made, before)
	}
	e.dropData()
	w.UID, w.Epoch = "u3", 1
	if later := made.Next(w, e.have(w), nil, e.now); !maps.Equal(later.Made, made.Made) {
		t.Errorf("record %+v of the next assignment, want made %v", later, made.Made)
	}
}

func TestHostVolume(t *testing.T) {
	media := &carav1.HostVolume{Name: "media"}
	limited := &carav1.HostVolume{Name: "media", Projects: []string{"shop-*"}}
	for name, c := range map[string]struct {
		offer *carav1.HostVolume
		edit  func(*Want, *world)
		want  string // of the next step, once the project is up
		says  string
	}{
		"all is well": {offer: media},
		"the path is missing while the container runs": {
			offer: media, edit: func(_ *Want, e *world) { e.absent = map[string]string{"films": "/srv is gone"} },
		},
		"the path is missing and a container is needed": {
			offer: media, edit: func(_ *Want, e *world) {
				e.absent, e.containers = map[string]string{"films": "/srv is gone"}, nil
			},
			want: "Wait web", says: "service web waits for the host volume media (volume films) on node n1: /srv is gone",
		},
		"the path is missing and the container has ended": {
			offer: media, edit: func(_ *Want, e *world) {
				e.absent = map[string]string{"films": "/srv is gone"}
				e.exit(0, 1)
			}, want: "Wait web",
		},
		"the path is missing and an update is due": {
			offer: media, edit: func(w *Want, e *world) {
				e.absent, w.RunHashes["web"] = map[string]string{"films": "/srv is gone"}, "v1:new"
			}, want: "Wait web",
		},
		"offered for reading only from now on": {
			offer: media, edit: func(w *Want, _ *world) {
				w.Hosts["films"] = HostVolume{Offer: &carav1.HostVolume{Name: "media", ReadOnly: true}, Path: "/srv"}
			}, want: "DeleteContainer web",
		},
		"another path from now on": {
			offer: media, edit: func(w *Want, _ *world) { w.Hosts["films"] = HostVolume{Offer: media, Path: "/mnt"} }, want: "DeleteContainer web",
		},
		"not offered":                 {want: "", says: `node n1 does not offer the host volume "media" to project shop`},
		"not offered to this project": {offer: limited, want: "", says: `node n1 does not offer the host volume "media" to project shop`},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &carav1.ProjectSpec{
				Volumes:  []*carav1.ProjectVolume{{Name: "films", Type: api.VolumeHost, Host: "media"}},
				Services: []*carav1.Service{{Name: "web", Image: "web", VolumeMounts: []*carav1.VolumeMount{{Name: "films", MountPath: "/films"}}}},
			}
			node := Node{Cluster: "c1", Name: "n1", Restart: RestartLimits{}.WithDefaults()}
			if c.offer != nil {
				node.HostVolumes = []HostVolume{{Offer: c.offer, Path: "/srv"}}
			}
			w, e := NewWant(node, &carav1.Assignment{Project: &carav1.Project{
				Metadata: &carav1.ObjectMeta{Name: "shop", Uid: "u2", Generation: 3}, Spec: spec,
				Status: &carav1.ProjectStatus{Phase: api.PhaseScheduled, Epoch: 7},
			}}, true), newWorld()
			e.images["web"] = true
			if len(w.Hosts) > 0 {
				for range 20 {
					e.do(w, Step(w, e.have(w), e.now))
				}
				if len(e.containers) != 1 || len(e.volumes)+len(e.data) > 0 {
					t.Fatalf("has %+v", e.have(w))
				}
			} else if w.Failure == nil || w.Failure.Reason != api.ReasonPolicyViolation || !strings.Contains(w.Failure.Message, c.says) {
				t.Errorf("failure %+v, want one with %q", w.Failure, c.says)
			}
			if c.edit != nil {
				c.edit(w, e)
			}
			actions := Step(w, e.have(w), e.now)
			if got := kinds(actions); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
			if c.want != "" && !strings.Contains(actions[0].Reason, c.says) {
				t.Errorf("says %q, want %q", actions[0].Reason, c.says)
			}
			if c.want == "Wait web" && actions[0].Until != e.now.Add(10*time.Second) {
				t.Errorf("looks again at %s", actions[0].Until)
			}
		})
	}
}

// TestHostVolumeReadOnly: what the node offers for reading only is mounted so, whatever the manifest says.
func TestHostVolumeReadOnly(t *testing.T) {
	w := wantOf(dataSpec())
	w.Hosts = map[string]HostVolume{"data": {Offer: &carav1.HostVolume{Name: "media", ReadOnly: true}, Path: "/srv"}}
	spec := w.ContainerSpec("cara-shop.db", w.Spec.Services[0])
	if diff := cmp.Diff(map[string]engine.Source{"data": {Path: "/srv", ReadOnly: true}}, spec.Volumes); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}
