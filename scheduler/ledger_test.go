package scheduler

import (
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestCapabilitiesAreCounted: what a project adds and what a node allows reach Place.
func TestCapabilitiesAreCounted(t *testing.T) {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "vpn"},
		Spec:     &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", CapAdd: []string{"CHOWN", "NET_ADMIN"}}}},
	}
	l := newLedger()
	node := func(name string, allows ...string) {
		l.setNode(name, &carav1.Node{
			Metadata: &carav1.ObjectMeta{Name: name},
			Status:   &carav1.NodeStatus{State: "Ready", Info: &carav1.NodeInfo{AllowedCapabilities: allows}},
		})
	}
	d, err := demand(p)
	if err != nil {
		t.Fatal(err)
	}
	node("a")
	if v := Place(d, l.order, Spread); v.Node != "" || v.Lost[Capability] != 1 {
		t.Errorf("without a node that allows it: %+v", v)
	}
	node("b", "NET_ADMIN")
	if v := Place(d, l.order, Spread); v.Node != "b" {
		t.Errorf("placed on %q, want b", v.Node)
	}
}
