package step

import (
	"net/netip"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// network returns the project's network, or adds an action to create it. The engine checks for duplicate names only with
// best effort: an agent that was killed while it created the network and the next agent may each have created one. Nothing
// can start until only one is left: the one in use, or else the first.
func (s *plan) network() *engine.Network {
	keep := s.h.network(s.w.Project)
	if keep == nil {
		s.attempt(Action{Kind: KindCreateNetwork, Name: NetworkName(s.w.Project), Reason: reasonNoNetwork}, api.ReasonNetworkFailed)
		return nil
	}
	result := keep
	for i := range s.h.Networks {
		n := &s.h.Networks[i]
		if n.Name != keep.Name || n.ID == keep.ID {
			continue
		}
		result = nil // a second one: it is removed, after the containers on it
		for _, c := range s.h.Containers {
			if on(c, n) {
				s.delete(c, "it is on the project's second network")
			}
		}
		if s.h.users(n) == 0 {
			s.attempt(Action{Kind: KindRemoveNetwork, ID: n.ID, Name: n.Name, Reason: "the project has two networks"}, "")
		}
	}
	return result
}

// network returns the project's network: if there are several, the one in use, or else the first.
func (h *Have) network(project string) *engine.Network {
	var keep *engine.Network
	for i := range h.Networks {
		n := &h.Networks[i]
		if n.Name != NetworkName(project) {
			continue
		}
		if keep == nil || h.users(n) > h.users(keep) || h.users(n) == h.users(keep) && n.ID < keep.ID {
			keep = n
		}
	}
	return keep
}

// roomy reports whether a network has an address for each service and one for a successor during an update. A network is
// never recreated to grow, because its containers would have to stop.
func (s *view) roomy(n *engine.Network) bool {
	p, err := netip.ParsePrefix(n.Subnet)
	return err != nil || engine.Addresses(p.Bits()) > len(s.w.Spec.GetServices())
}

// users counts the running containers on a network.
func (h *Have) users(n *engine.Network) int {
	users := 0
	for _, c := range h.Containers {
		if on(c, n) {
			users++
		}
	}
	return users
}

// on reports whether a running container is on a network. Its name alone says nothing: after a connection that failed, the
// engine lists the network of a running container, without an id.
func on(c engine.Container, n *engine.Network) bool {
	return up(c) && c.Networks[n.Name].NetworkID == n.ID
}
