package dispatch

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// flushPorts adds the ports of projects if they differ from those that the agent knows. sending must be held.
func (f *routeFeed) flushPorts(msg *carav1.Routes, dirty map[string]struct{}) {
	me, _ := state.Get[*carav1.Node](f.server.DB.Cache, f.me.Node)
	offer := me.GetStatus().GetInfo().GetPortOffer()
	if !proto.Equal(offer, f.offer) { // all projects may matter now, or no longer
		f.offer = offer
		dirty = maps.Clone(dirty)
		for _, name := range projectsWithPorts(f.server.DB.Cache) {
			dirty[name] = struct{}{}
		}
		for name := range f.ports {
			dirty[name] = struct{}{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dirty)) {
		now, old := portRoutes(f.server.DB.Cache, name, f.me, offer), f.ports[name]
		switch {
		case now == nil && old != nil:
			msg.Ports = append(msg.Ports, &carav1.ProjectPorts{Project: name})
			delete(f.ports, name)
		case now != nil && !proto.Equal(now, old):
			msg.Ports = append(msg.Ports, now)
			f.ports[name] = now
		}
	}
}

// portRoutes returns what an agent gets about the ports of a project: those that it offers, and all of them if it runs the
// project. It returns nil if there are none, and for agents that know no ports. Agents of older versions
// get no UDP ports.
func portRoutes(r state.Reader, name string, to *Session, offer *carav1.PortOffer) *carav1.ProjectPorts {
	p, ok := state.Get[*carav1.Project](r, name)
	if !ok || offer == nil || api.GoingAway(p) {
		return nil
	}
	st := p.GetStatus()
	out := &carav1.ProjectPorts{Project: name, Node: st.GetNodeRef()}
	for _, port := range p.GetSpec().GetPorts() {
		k := api.KeyOfPort(port)
		if api.ServesProtocol(offer, k.Protocol) && (st.GetNodeRef() == to.Node || api.OffersPort(offer, k)) {
			port = proto.CloneOf(port)
			port.Protocol, port.Scope = k.Protocol, k.Scope
			out.Ports = append(out.Ports, port)
		}
	}
	if len(out.GetPorts()) == 0 {
		return nil
	}
	if st.GetNodeRef() != to.Node {
		node, _ := state.Get[*carav1.Node](r, st.GetNodeRef())
		out.IngressAddress = ingressAddress(node, to.here)
	}
	return out
}
