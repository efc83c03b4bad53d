package agent

import (
	"context"
	"log/slog"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
	w := &step.Want{Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: "web"}, {Name: "b", Image: "web"}, {Name: "c", Image: "web"}}}}
	eng := &networkMaker{}
	a := &actor{engine: eng, log: slog.New(slog.DiscardHandler)}
	if err := a.act(t.Context(), w, &step.Have{}, step.Action{Kind: step.KindCreateNetwork, Name: "n"}); err != nil {
		t.Fatal(err)
	}
	if eng.addresses != 6 {
		t.Errorf("asked for %d addresses for 3 services, want 6", eng.addresses)
	}
}
