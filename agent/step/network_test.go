package step

import (
	"slices"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// TestNetworkTooSmall: a service that would have no address is not made, and nothing that runs is stopped for it.
func TestNetworkTooSmall(t *testing.T) {
	for subnet, want := range map[string]string{"10.0.0.0/29": "CreateContainer b", "10.0.0.0/30": "Fail b", "": "CreateContainer b"} {
		w, e := pair(t, nil)
		e.networks[0].Subnet = subnet
		e.containers = slices.DeleteFunc(e.containers, func(c engine.Container) bool { return c.Labels[api.LabelService] == "b" })
		if got := kinds(Step(w, e.have(w), e.now)); got != want {
			t.Errorf("on %q it does %q, want %q", subnet, got, want)
		}
	}
}
