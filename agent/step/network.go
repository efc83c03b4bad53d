package step

import (
	"net/netip"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// network returns the project's network, or asks for it. The engine looks for a name that is taken only as well as it
// can: an agent that died while it made the network, and the one after it, may each have made one. Nothing can start
// until the one that is in use, or else the first, is alone.
func (s *plan) network() *engine.Network {
	keep := s.keeper()
	if keep == nil {
		s.attempt(Action{Kind: KindCreateNetwork, Name: NetworkName(s.w.Project), Reason: "the project has no network"}, api.ReasonNetworkFailed)
		return nil
	}
	alone := true
	for i := range s.h.Networks {
		n := &s.h.Networks[i]
		if n.Name != keep.Name || n.ID == keep.ID {
			continue
		}
		alone = false
		for _, c := range s.h.Containers {
			if on(c, n) {
				s.delete(c, "it is on the project's second network")
			}
		}
		if s.users(n) == 0 {
			s.attempt(Action{Kind: KindRemoveNetwork, ID: n.ID, Name: n.Name, Reason: "the project has two networks"}, "")
		}
	}
	if !alone {
		return nil
	}
	return keep
}

// keeper is the project's network: of several, the one that is in use, or else the first.
func (s *view) keeper() *engine.Network {
	var keep *engine.Network
	for i := range s.h.Networks {
		n := &s.h.Networks[i]
		if n.Name != NetworkName(s.w.Project) {
			continue
		}
		if keep == nil || s.users(n) > s.users(keep) || s.users(n) == s.users(keep) && n.ID < keep.ID {
			keep = n
		}
	}
	return keep
}

// roomy reports whether a network has an address for each service and one for the successor that an update starts beside
// it. A network is never made anew for that: its containers would have to stop.
func (s *view) roomy(n *engine.Network) bool {
	p, err := netip.ParsePrefix(n.Subnet)
	return err != nil || engine.Addresses(p.Bits()) > len(s.w.Spec.GetServices())
}

// users counts the containers that run on a network.
func (s *view) users(n *engine.Network) int {
	users := 0
	for _, c := range s.h.Containers {
		if on(c, n) {
			users++
		}
	}
	return users
}

// on says whether a container runs on a network.
func on(c engine.Container, n *engine.Network) bool {
	return up(c) && c.Networks[n.Name].NetworkID == n.ID
}
