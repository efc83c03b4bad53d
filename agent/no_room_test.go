package agent_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/agent/docker"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// If a node's network pool is exhausted, a project waits, reports why, and continues when another network is removed. Its
// attempts do not count towards failures of another kind.
func TestNoRoomForANetwork(t *testing.T) {
	f := newFaked(t)
	var tries atomic.Int64
	f.engine.Fault(func(call string) error {
		switch n := tries.Load(); {
		case call != "CreateNetwork":
			return nil
		case n < int64(f.cfg.Restart.Limit)+2:
			tries.Add(1)
			return fmt.Errorf("create network: %w: every subnet is taken", engine.ErrNoRoom)
		case n == int64(f.cfg.Restart.Limit)+2:
			tries.Add(1)
			return errors.New("something odd")
		}
		return nil
	})
	f.run(t)
	f.put("p", services("web"))
	p := f.wait(t, "p", func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return strings.Contains(c.GetMessage(), "every subnet is taken")
	})
	if p.Status.Phase != api.PhaseScheduled {
		t.Errorf("phase %s while there is no room", p.Status.Phase)
	}
	p = f.wait(t, "p", func(p *carav1.Project) bool {
		return p.GetStatus().GetPhase() == api.PhaseRunning || p.GetStatus().GetPhase() == api.PhaseFailed
	})
	if p.Status.Phase != api.PhaseRunning {
		t.Errorf("failed: %v", p.Status.Conditions)
	}
}

// The real engine's only network is taken by the first project, and becomes free when that is removed.
func TestRealNoRoomForANetwork(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	eng, err := docker.New(docker.Config{Host: r.host, NetworkPool: netip.MustParsePrefix("10.219.255.224/27")})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	r.cfg.Engine = eng
	r.run(t)
	first, second := "first-"+name(t), "second-"+name(t)
	r.put(first, services(testimage.WebV1))
	r.wait(t, first, phase(api.PhaseRunning))
	r.put(second, services(testimage.WebV1))
	p := r.wait(t, second, func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return strings.Contains(c.GetMessage(), "all 1 subnets of the network pool 10.219.255.224/27 are taken")
	})
	if p.Status.Phase != api.PhaseScheduled {
		t.Errorf("phase %s while there is no room", p.Status.Phase)
	}
	r.terminate(first)
	r.wait(t, second, phase(api.PhaseRunning))
	r.stop()
}
