package apiserver

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// withPort is a project with one port.
func withPort(name string, port int32, scope string) *carav1.Project {
	p := web(name)
	p.Spec.Ingress = nil
	p.Spec.Ports = []*carav1.ProjectPort{{Name: "web", Port: port, Scope: scope, Target: &carav1.IngressTarget{Service: "web", Port: 80}}}
	return p
}

func udpPort(p *carav1.Project) *carav1.Project {
	p.Spec.Ports[0].Protocol = api.ProtocolUDP
	return p
}

// TestPortClaims: a protocol, port and scope belongs to one project, until the project lets it go or is gone.
func TestPortClaims(t *testing.T) {
	w := newTown(t)
	for _, step := range []struct {
		p    *carav1.Project
		want string // the problem; empty if it is accepted
	}{
		{withPort("one", 5432, ""), ""},
		{withPort("one", 5432, api.ScopeInternal), ""},
		{withPort("two", 5432, ""), `TCP port 5432 (Internal) belongs to project "one"`},
		{withPort("two", 5433, ""), ""},
		{withPort("two", 5432, ""), `belongs to project "one"`},
		{udpPort(withPort("udp", 5432, "")), ""},
		{udpPort(withPort("two", 5432, "")), `UDP port 5432 (Internal) belongs to project "udp"`},
		{withPort("one", 5434, ""), ""},
		{withPort("two", 5432, ""), ""}, // one has let it go
		{withPort("one", 5433, ""), ""}, // so has two
	} {
		got := w.applyFor(t, "a", "", step.p)
		switch p := got.GetProblem(); {
		case step.want == "" && p != nil:
			t.Fatalf("%s was refused: %v", step.p.GetMetadata().GetName(), p)
		case step.want != "" && (p.GetTitle() != api.TitleConflict || !strings.Contains(p.GetDetail(), step.want)):
			t.Errorf("%v, want the conflict %q", got, step.want)
		}
	}
	if _, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: withPort("three", 5432, api.ScopePublic)}); err != nil {
		t.Errorf("the port with the other scope: %v", err)
	}
	if _, err := w.admin.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "three", Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: withPort("four", 5432, api.ScopePublic)}); err != nil {
		t.Errorf("the port of a project that is gone: %v", err)
	}
	_, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: withPort("five", 5432, api.ScopePublic)})
	testproblem.Want(t, err, codes.AlreadyExists, api.TitleConflict)
}

// TestAForgottenPortClaim: a server of an older version removes or replaces a project and not its claim. The claim blocks nobody.
func TestAForgottenPortClaim(t *testing.T) {
	w := newTown(t)
	k := api.PortKey{Protocol: api.ProtocolTCP, Port: 5432, Scope: api.ScopeInternal}
	err := w.db.Transact(t.Context(), func(x *state.Tx) error {
		x.Write(state.Key(state.KindPort, k.Name()), &carav1.PortClaim{Project: "gone", Uid: "1"})
		k.Port = 5433
		x.Write(state.Key(state.KindPort, k.Name()), &carav1.PortClaim{Project: "again", Uid: "1"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*carav1.Project{web("again"), withPort("one", 5432, ""), withPort("two", 5433, "")} {
		if got := w.applyFor(t, "a", "", p); got.GetProblem() != nil {
			t.Errorf("%s was refused: %v", p.GetMetadata().GetName(), got.GetProblem())
		}
	}
}

// TestWhoMayClaimPorts: a source claims the ports of its spec.allow, by default all internal ones and no public one. A token that
// is limited to names or hosts claims no public port.
func TestWhoMayClaimPorts(t *testing.T) {
	dir := &carav1.DirSource{Path: "/srv"}
	for name, tt := range map[string]struct {
		allow *carav1.SourceAllow
		p     *carav1.Project
		want  string // empty: created
	}{
		"internal by default":         {nil, withPort("web", 5432, ""), ""},
		"public by default":           {nil, withPort("web", 22, api.ScopePublic), `source "a" may not claim TCP port 22 (Public); add 22 to spec.allow.publicPorts of the source`},
		"public that is listed":       {&carav1.SourceAllow{PublicPorts: []string{"20-25"}}, withPort("web", 22, api.ScopePublic), ""},
		"public, listed as internal":  {&carav1.SourceAllow{Ports: []string{"22"}}, withPort("web", 22, api.ScopePublic), "may not claim TCP port 22 (Public)"},
		"UDP by default":              {nil, udpPort(withPort("web", 53, "")), ""},
		"UDP that is listed":          {&carav1.SourceAllow{Ports: []string{"50-60/udp"}}, udpPort(withPort("web", 53, "")), ""},
		"UDP, listed as TCP":          {&carav1.SourceAllow{Ports: []string{"53"}}, udpPort(withPort("web", 53, "")), `may not claim UDP port 53 (Internal); add 53/udp to spec.allow.ports`},
		"TCP, listed as UDP":          {&carav1.SourceAllow{PublicPorts: []string{"53/udp"}}, withPort("web", 53, api.ScopePublic), "add 53 to spec.allow.publicPorts"},
		"internal that is not listed": {&carav1.SourceAllow{Ports: []string{"22", "80-90"}}, withPort("web", 91, ""), "add 91 to spec.allow.ports of the source"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			allow(t, w.Server, "a", &carav1.SourceSpec{Dir: dir, Allow: tt.allow})
			got := w.applyFor(t, "a", "", tt.p).GetProblem()
			if (got == nil) != (tt.want == "") || !strings.Contains(got.GetDetail(), tt.want) {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
	public, internal := api.PortKeys(withPort("a", 22, api.ScopePublic).GetSpec()), api.PortKeys(withPort("a", 22, "").GetSpec())
	for _, limited := range []identity.Actor{{NamePrefixes: []string{"pr-"}}, {Hosts: []string{"*"}}} {
		if limited.MayClaimPorts(public) == nil || limited.MayClaimPorts(internal) != nil {
			t.Errorf("%v may claim the wrong ports", limited)
		}
	}
	if err := (identity.Actor{}).MayClaimPorts(public); err != nil {
		t.Error(err)
	}
}

// offer is a heartbeat of an agent that knows ports.
func (a *fakeAgent) offer(o *carav1.PortOffer, ports ...*carav1.NodePort) {
	a.t.Helper()
	info := &carav1.NodeInfo{Platform: "linux/amd64", IngressAddress: "192.0.2.1:8081", PortOffer: o}
	beat := &carav1.Heartbeat{Info: info, Ports: &carav1.PortReport{Ports: ports}}
	if err := a.stream.Send(&carav1.ConnectRequest{Heartbeat: beat}); err != nil {
		a.t.Fatal(err)
	}
}

// settled waits until a project's condition PortsReady is what it should be now.
func (c *cluster) settled(t *testing.T, project string) {
	t.Helper()
	eventually(t, "the condition of "+project+" is written", func() bool {
		p, _ := state.Get[*carav1.Project](c.db.Cache, project)
		nodes := state.List[*carav1.Node](c.db.Cache, "")
		got := api.FindCondition(p.GetStatus().GetConditions(), api.CondPortsReady)
		return got != nil && got.GetMessage() == api.PortsCondition(p, nodes).GetMessage()
	})
}

// TestPortRoutes: an agent learns the ports that it offers, and those of the projects that it runs. Others learn none.
func TestPortRoutes(t *testing.T) {
	c := newCluster(t, nil)
	one, old := connectAgent(t, c.node(t, "n1"), "n1"), connectAgent(t, c.node(t, "n2"), "n2")
	one.synced()
	old.synced()
	p := withPort("shop", 5432, "")
	p.Spec.Ports = append(p.Spec.Ports, &carav1.ProjectPort{Name: "out", Port: 5433, Target: p.Spec.Ports[0].Target})
	c.create(t, p)
	one.offer(&carav1.PortOffer{Ports: []string{"5432"}, InternalAddress: "192.0.2.1"})
	got := one.routes(func(r *carav1.Routes) bool { return len(r.GetPorts()) == 1 }).GetPorts()[0]
	if len(got.GetPorts()) != 1 || got.GetPorts()[0].GetPort() != 5432 || got.GetPorts()[0].GetProtocol() != api.ProtocolTCP || got.GetPorts()[0].GetScope() != api.ScopeInternal {
		t.Errorf("the agent that offers one of two ports learns %v", got)
	}
	c.settled(t, "shop") // so that bind has no conflict
	c.bind(t, "shop", "n1")
	got = one.routes(func(r *carav1.Routes) bool { return len(r.GetPorts()) == 1 && r.GetPorts()[0].GetNode() == "n1" }).GetPorts()[0]
	if len(got.GetPorts()) != 2 || got.GetIngressAddress() != "" {
		t.Errorf("the agent that runs the project learns %v", got)
	}
	one.offer(&carav1.PortOffer{})
	one.offer(&carav1.PortOffer{Ports: []string{"5432"}, InternalAddress: "192.0.2.1"})
	if _, err := carav1.NewProjectServiceClient(c.admin(t)).DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop", NoWait: true}); err != nil {
		t.Fatal(err)
	}
	one.routes(func(r *carav1.Routes) bool { return len(r.GetPorts()) == 1 && len(r.GetPorts()[0].GetPorts()) == 0 })
	c.create(t, withPort("kept", 5434, ""))
	c.settled(t, "kept")
	c.bind(t, "kept", "n2")
	c.create(t, at("last", "last"))
	old.routes(func(r *carav1.Routes) bool {
		if len(r.GetPorts()) > 0 {
			t.Errorf("an agent that knows no ports learns %v", r)
		}
		return len(r.GetUpserts()) == 1 && r.GetUpserts()[0].GetProject() == "last"
	})
}

// TestUDPPortRoutes: only agents that serve UDP learn UDP ports.
func TestUDPPortRoutes(t *testing.T) {
	c := newCluster(t, nil)
	one := connectAgent(t, c.node(t, "n1"), "n1")
	one.synced()
	p := withPort("game", 5432, "")
	p.Spec.Ports = append(p.Spec.Ports, &carav1.ProjectPort{Name: "udp", Protocol: api.ProtocolUDP, Port: 5432, Target: p.Spec.Ports[0].Target})
	c.create(t, p)
	learns := func(o *carav1.PortOffer, protocols ...string) {
		t.Helper()
		one.offer(o)
		got := one.routes(func(r *carav1.Routes) bool { return len(r.GetPorts()) == 1 }).GetPorts()[0].GetPorts()
		var has []string
		for _, port := range got {
			has = append(has, port.GetProtocol())
		}
		if !slices.Equal(has, protocols) {
			t.Errorf("the agent learns %v, want %v", has, protocols)
		}
	}
	old := &carav1.PortOffer{Ports: []string{"5432", "5432/udp"}, InternalAddress: "192.0.2.1"}
	learns(old, api.ProtocolTCP)
	learns(&carav1.PortOffer{Ports: old.GetPorts(), InternalAddress: "192.0.2.1", Protocols: api.PortProtocols()}, api.ProtocolTCP, api.ProtocolUDP)
	learns(old, api.ProtocolTCP)
	c.settled(t, "game") // so that bind has no conflict
	c.bind(t, "game", "n1")
	learns(&carav1.PortOffer{}, api.ProtocolTCP)
	learns(&carav1.PortOffer{Protocols: api.PortProtocols()}, api.ProtocolTCP, api.ProtocolUDP)
}

// TestPortConditions: a project says where its ports are open, and why one is not. So does the node.
func TestPortConditions(t *testing.T) {
	c := newCluster(t, nil)
	one := connectAgent(t, c.node(t, "n1"), "n1")
	one.synced()
	c.create(t, withPort("shop", 5432, ""))
	is := func(reason, status, text string) {
		t.Helper()
		eventually(t, "PortsReady is "+reason, func() bool {
			p, _ := state.Get[*carav1.Project](c.db.Cache, "shop")
			got := api.FindCondition(p.GetStatus().GetConditions(), api.CondPortsReady)
			return got.GetReason() == reason && got.GetStatus() == status && strings.Contains(got.GetMessage(), text)
		})
	}
	nodeSays := func(text string) {
		t.Helper()
		eventually(t, "the node says "+text, func() bool {
			n, _ := state.Get[*carav1.Node](c.db.Cache, "n1")
			got := api.FindCondition(n.GetStatus().GetConditions(), api.CondPortsReady)
			return (got == nil) == (text == "") && strings.Contains(got.GetMessage(), text)
		})
	}
	offer := &carav1.PortOffer{Ports: []string{"5432"}, InternalAddress: "192.0.2.1"}
	port := &carav1.NodePort{Protocol: api.ProtocolTCP, Port: 5432, Scope: api.ScopeInternal, Project: "shop"}
	taken := &carav1.NodePort{Protocol: api.ProtocolTCP, Port: 5432, Scope: api.ScopeInternal, Project: "shop", Problem: "another program uses it"}
	is(api.ReasonPortNotOffered, api.StatusFalse, "no node offers TCP port 5432 (Internal); start a cara-agent with --ports 5432 and --ports-internal ADDRESS")
	one.offer(offer)
	is(api.ReasonPortOpening, api.StatusFalse, "waiting until node n1 opens it")
	one.offer(offer, taken)
	is(api.ReasonPortNotOpen, api.StatusFalse, "is not open on node n1: another program uses it")
	nodeSays("TCP port 5432 (Internal) of project shop: another program uses it")
	one.offer(offer, port)
	is(api.ReasonPortsOpen, api.StatusTrue, "TCP port 5432 (Internal) on n1")
	nodeSays("")
	one.offer(nil) // an agent of an older version
	is(api.ReasonPortNotOffered, api.StatusFalse, "no node offers")
}
