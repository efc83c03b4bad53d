package testequal

import (
	"maps"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
)

// TestDifferences breaks one thing after the other of an engine that is as it should be.
func TestDifferences(t *testing.T) {
	data := func(h *testdocker.Held, uid string) {
		h.Volumes = append(h.Volumes, &volume.Volume{Name: "cara-shop.db-" + uid, Labels: map[string]string{api.LabelVolume: "shop.db", api.LabelVolumeUID: uid}})
	}
	uses := func(p *carav1.Project, uid string) {
		p.Spec.Volumes = append(p.Spec.Volumes, &carav1.ProjectVolume{Name: "db", Type: api.VolumeManaged})
		p.Status.Volumes = []*carav1.VolumeUse{{Name: "db", Uid: uid}}
	}
	known := []*carav1.Volume{
		{Metadata: &carav1.ObjectMeta{Name: "shop.db", Uid: "d1"}},
		{Metadata: &carav1.ObjectMeta{Name: "old.db", Uid: "d2"}, Status: &carav1.VolumeStatus{State: api.VolumeRetained, Made: true, Node: "n1"}},
	}
	project := func() *carav1.Project {
		return &carav1.Project{
			Metadata: &carav1.ObjectMeta{Name: "shop", Uid: "u1", Generation: 2},
			Spec: &carav1.ProjectSpec{
				Volumes:  []*carav1.ProjectVolume{{Name: "data"}},
				Services: []*carav1.Service{{Name: "web", Image: "web"}, {Name: "job", Image: "job", RestartPolicy: api.RestartNever}},
			},
			Status: &carav1.ProjectStatus{Phase: api.PhaseRunning, Epoch: 3, ObservedGeneration: 2, NodeRef: "n1"},
		}
	}
	for _, c := range []struct {
		name   string
		change func(p *carav1.Project, h *testdocker.Held)
		want   string // part of the only difference; empty: none
	}{
		{"as it should be", func(*carav1.Project, *testdocker.Held) {}, ""},
		{"of another node", func(p *carav1.Project, h *testdocker.Held) { p.Status.NodeRef = "n2"; *h = testdocker.Held{} }, ""},
		{"not there yet", func(p *carav1.Project, _ *testdocker.Held) { p.Status.Phase = api.PhaseScheduled }, "project shop is Scheduled"},
		{"generation not observed", func(p *carav1.Project, _ *testdocker.Held) { p.Metadata.Generation = 4 }, "generation 2 is observed, want 4"},
		{"no container", func(_ *carav1.Project, h *testdocker.Held) { h.Containers = h.Containers[1:] }, "service shop.web has the containers [], want one"},
		{"a second container", func(_ *carav1.Project, h *testdocker.Held) {
			second := h.Containers[0]
			second.ID, second.Names = "c9", []string{"/other"}
			h.Containers = append(h.Containers, second)
		}, "[container cara-shop.web container other], want one"},
		{"stopped", func(_ *carav1.Project, h *testdocker.Held) { h.Containers[0].State = "exited" }, "shop.web: the container is exited"},
		{"paused", func(_ *carav1.Project, h *testdocker.Held) { h.Containers[0].State = "paused" }, "shop.web: the container is paused"},
		{"older epoch", func(_ *carav1.Project, h *testdocker.Held) {
			h.Containers[1].Labels = with(h.Containers[1].Labels, api.LabelEpoch, "2")
		}, "service shop.job has the containers [], want one; container cara-shop.job is nobody's (uid u1, epoch 2)"},
		{"older hash", func(_ *carav1.Project, h *testdocker.Held) {
			h.Containers[0].Labels = with(with(h.Containers[0].Labels, api.LabelSpecHash, "old"), labelRunHash, "old")
		}, "the container's hash is old"},
		{"limits changed in place", func(p *carav1.Project, h *testdocker.Held) {
			p.Spec.Services[0].Resources = &carav1.Resources{Limits: &carav1.ResourceList{Memory: "64Mi"}}
		}, ""},
		{"off the network", func(_ *carav1.Project, h *testdocker.Held) { h.Containers[0].NetworkSettings = nil }, "on the networks [], want cara-shop"},
		{"on a network that is gone", func(_ *carav1.Project, h *testdocker.Held) {
			h.Containers[0].NetworkSettings.Networks["cara-shop"].NetworkID = "gone"
		}, "on the networks [cara-shop], want cara-shop (net)"},
		{"two networks", func(_ *carav1.Project, h *testdocker.Held) {
			second := h.Networks[0]
			second.ID = "net2"
			h.Networks = append(h.Networks, second)
		}, "has the networks [network cara-shop network cara-shop]"},
		{"volume gone", func(_ *carav1.Project, h *testdocker.Held) { h.Volumes = nil }, "has the volumes [], want [cara-shop.data]"},
		{"service left the spec", func(p *carav1.Project, _ *testdocker.Held) { p.Spec.Services = p.Spec.Services[:1] }, `container cara-shop.job is of service "job"`},
		{"an orphan", func(_ *carav1.Project, h *testdocker.Held) {
			h.Volumes = append(h.Volumes, &volume.Volume{Name: "left", Labels: map[string]string{api.LabelProject: "gone"}})
		}, "volume left is nobody's"},
		{"a Managed volume", func(p *carav1.Project, h *testdocker.Held) { uses(p, "d1"); data(h, "d1") }, ""},
		{"a Managed volume that nobody uses", func(_ *carav1.Project, h *testdocker.Held) { data(h, "d1") }, ""},
		{"a Managed volume without an object", func(_ *carav1.Project, h *testdocker.Held) { data(h, "d9") }, "volume cara-shop.db-d9 has no Volume object (uid d9)"},
		{
			"a Managed volume that is gone",
			func(p *carav1.Project, _ *testdocker.Held) { uses(p, "d1") },
			`the data of volume db (uid d1) is in the volume "", want "cara-shop.db-d1"`,
		},
		{"retained data that is gone", func(_ *carav1.Project, h *testdocker.Held) {
			h.Volumes[1].Labels = map[string]string{}
		}, "Volume old.db is Retained, and the engine does not have its data; volume cara-old.db-d2 is nobody's"},
		{"failed, and runs", func(p *carav1.Project, _ *testdocker.Held) { p.Status.Phase = api.PhaseFailed }, "container cara-shop.web runs though project shop is Failed"},
		{"failed", func(p *carav1.Project, h *testdocker.Held) {
			p.Status.Phase, h.Containers[0].State = api.PhaseFailed, "exited"
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := project()
			held := asAssigned(p)
			c.change(p, &held)
			if len(held.Volumes) == 0 {
				held.Volumes = append(held.Volumes, retained())
			}
			got := strings.Join(Differences("n1", []*carav1.Project{p}, known, held), "; ")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Count(got, "; ") != strings.Count(c.want, "; ") {
				t.Errorf("differences:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func with(labels map[string]string, key, value string) map[string]string {
	labels = maps.Clone(labels)
	labels[key] = value
	return labels
}

// retained is data that no project uses.
func retained() *volume.Volume {
	return &volume.Volume{Name: "cara-old.db-d2", Labels: map[string]string{api.LabelVolume: "old.db", api.LabelVolumeUID: "d2"}}
}

// asAssigned is what an engine holds that is as the project says.
func asAssigned(p *carav1.Project) testdocker.Held {
	owner := map[string]string{api.LabelProject: "shop", api.LabelUID: "u1", api.LabelEpoch: "3"}
	held := testdocker.Held{
		Networks: []network.Summary{{ID: "net", Name: "cara-shop", Labels: owner}},
		Volumes:  []*volume.Volume{{Name: "cara-shop.data", Labels: owner}, retained()},
	}
	for i, state := range []string{"running", "exited"} {
		service := p.GetSpec().GetServices()[i].GetName()
		whole, run := hashes(p.GetSpec(), service)
		held.Containers = append(held.Containers, container.Summary{
			ID: service, Names: []string{"/cara-shop." + service}, State: state,
			Labels:          with(with(with(owner, api.LabelService, service), api.LabelSpecHash, whole), labelRunHash, run),
			NetworkSettings: &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{"cara-shop": {NetworkID: "net"}}},
		})
	}
	return held
}
