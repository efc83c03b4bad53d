package api_test

import (
	"slices"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestReclaimIsNoPartOfAContainer: a change of reclaim alone must not replace a container.
func TestReclaimIsNoPartOfAContainer(t *testing.T) {
	spec := func(v *carav1.ProjectVolume) *carav1.ProjectSpec {
		v.Name = "data"
		return &carav1.ProjectSpec{
			Services: []*carav1.Service{{Name: "db", Image: "postgres:15", VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}}},
			Volumes:  []*carav1.ProjectVolume{v},
		}
	}
	kept, deleted := spec(&carav1.ProjectVolume{Type: api.VolumeManaged}), spec(&carav1.ProjectVolume{Type: api.VolumeManaged, Reclaim: api.ReclaimDelete})
	if api.ServiceHash(kept, "db") != api.ServiceHash(deleted, "db") {
		t.Error("reclaim is part of the service's hash")
	}
	if api.Hash(kept) == api.Hash(deleted) {
		t.Error("reclaim is no part of the spec's hash")
	}
	if explicit := spec(&carav1.ProjectVolume{Type: api.VolumeManaged, Reclaim: api.ReclaimRetain}); api.Hash(explicit) != api.Hash(kept) {
		t.Error("Retain is not the default")
	}
	if ephemeral := spec(&carav1.ProjectVolume{}); api.ServiceHash(ephemeral, "db") == api.ServiceHash(kept, "db") {
		t.Error("the type is no part of the service's hash")
	}
}

func TestDataNodes(t *testing.T) {
	use := func(node string, made bool) *carav1.VolumeUse { return &carav1.VolumeUse{Node: node, Made: made} }
	for name, test := range map[string]struct {
		uses []*carav1.VolumeUse
		want []string
	}{
		"no volume":            {},
		"no node yet":          {[]*carav1.VolumeUse{use("", false)}, nil},
		"assigned and no data": {[]*carav1.VolumeUse{use("n1", false)}, nil},
		"two on one node":      {[]*carav1.VolumeUse{use("n1", true), use("n1", true)}, []string{"n1"}},
		"on two nodes":         {[]*carav1.VolumeUse{use("n2", true), use("n1", true)}, []string{"n1", "n2"}},
	} {
		p := &carav1.Project{Status: &carav1.ProjectStatus{Volumes: test.uses}}
		if got := api.DataNodes(p); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestOfferedTo(t *testing.T) {
	offers := []*carav1.HostVolume{{Name: "media", Projects: []string{"jellyfin-*", "tv"}}, {Name: "pub", ReadOnly: true}}
	for _, test := range []struct {
		name, project string
		want          bool
	}{
		{"media", "jellyfin-1", true},
		{"media", "tv", true},
		{"media", "shop", false},
		{"pub", "shop", true},
		{"other", "shop", false},
	} {
		if got := api.OfferedTo(offers, test.name, test.project) != nil; got != test.want {
			t.Errorf("%s to %s: %t, want %t", test.name, test.project, got, test.want)
		}
	}
}
