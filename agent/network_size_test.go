package agent

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
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

// networkMaker notes how many addresses it was asked for.
type networkMaker struct {
	engine.Engine
	addresses int
}

func (e *networkMaker) CreateNetwork(_ context.Context, _ string, _ map[string]string, addresses int) (engine.Network, error) {
	e.addresses = addresses
	return engine.Network{}, nil
}

// TestNetworkHasRoomForSuccessors: each service and its start-first successor have an address.
func TestNetworkHasRoomForSuccessors(t *testing.T) {
	w := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: "web"}, {Name: "b", Image: "web"}, {Name: "c", Image: "web"}}})
	eng := &networkMaker{}
	a := &Agent{engine: eng, log: slog.New(slog.DiscardHandler)}
	if err := a.act(t.Context(), w, &Have{}, Action{Kind: KindCreateNetwork, Name: "n"}); err != nil {
		t.Fatal(err)
	}
	if eng.addresses != 6 {
		t.Errorf("asked for %d addresses for 3 services, want 6", eng.addresses)
	}
}
