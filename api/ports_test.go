package api_test

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestPortRanges(t *testing.T) {
	const wrong = "write a port from 1 to 65535"
	for entry, want := range map[string]struct {
		problem string
		has     []int32
		lacks   []int32
	}{
		"22":              {"", []int32{22}, []int32{21, 23, 0}},
		"25565-25570":     {"", []int32{25565, 25567, 25570}, []int32{25564, 25571}},
		"1-65535":         {"", []int32{1, 65535}, []int32{0}},
		"22/udp":          {"", []int32{22}, []int32{21, 23, 0}},
		"25565-25570/udp": {"", []int32{25565, 25567, 25570}, []int32{25564, 25571}},
		"65536":           {wrong, nil, []int32{0, 65535}},
		"0":               {wrong, nil, []int32{0}},
		"0/udp":           {wrong, nil, []int32{0}},
		"5-4":             {wrong, nil, []int32{4, 5}},
		"":                {wrong, nil, []int32{0}},
		"/udp":            {wrong, nil, []int32{0}},
		"-":               {wrong, nil, []int32{0}},
		"+5":              {wrong, nil, []int32{5}},
		"05":              {wrong, nil, []int32{5}},
		"22/tcp":          {"TCP ports have no suffix: write 22", nil, []int32{22}},
		"22/UDP":          {"write 22/udp", nil, []int32{22}},
		"22/udp/udp":      {wrong, nil, []int32{22}},
		"22/sctp":         {wrong, nil, []int32{22}},
		"1/udp-9/udp":     {wrong, nil, []int32{1, 5, 9}},
	} {
		if got := api.PortRangeProblem(entry); (got == "") != (want.problem == "") || !strings.Contains(got, want.problem) {
			t.Errorf("%q: got %q, want %q", entry, got, want.problem)
		}
		has, lacks := api.ProtocolTCP, api.ProtocolUDP
		if strings.HasSuffix(entry, "/udp") {
			has, lacks = lacks, has
		}
		list := []string{"7", "7/udp", entry}
		for _, port := range want.has {
			k := api.PortKey{Protocol: has, Port: port}
			if !api.PortInRanges(list, k) {
				t.Errorf("%q lacks %s", entry, k)
			}
			if k.Protocol = lacks; api.PortInRanges(list, k) {
				t.Errorf("%q has %s", entry, k)
			}
			if k.Protocol = has; !api.PortInRanges([]string{k.Entry()}, k) {
				t.Errorf("%q lacks %s", k.Entry(), k)
			}
		}
		for _, port := range want.lacks {
			if api.PortInRanges(list, api.PortKey{Protocol: has, Port: port}) {
				t.Errorf("%q has %d", entry, port)
			}
		}
	}
}

// TestServesProtocol: an agent that does not say which protocols it serves is of a version that serves TCP only.
func TestServesProtocol(t *testing.T) {
	for name, tt := range map[string]struct {
		offer    *carav1.PortOffer
		tcp, udp bool
	}{
		"knows no ports":     {nil, false, false},
		"knows TCP":          {&carav1.PortOffer{}, true, false},
		"of this version":    {&carav1.PortOffer{Protocols: api.PortProtocols()}, true, true},
		"of a newer version": {&carav1.PortOffer{Protocols: []string{"SCTP", api.ProtocolUDP}}, false, true},
	} {
		if tcp, udp := api.ServesProtocol(tt.offer, api.ProtocolTCP), api.ServesProtocol(tt.offer, api.ProtocolUDP); tcp != tt.tcp || udp != tt.udp {
			t.Errorf("%s: TCP %v, UDP %v", name, tcp, udp)
		}
	}
}

func TestPortsCondition(t *testing.T) {
	project := &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "p"}, Spec: &carav1.ProjectSpec{Ports: []*carav1.ProjectPort{{Port: 22, Scope: api.ScopePublic}}}}
	node := func(name, state string, offer *carav1.PortOffer, ports ...*carav1.NodePort) *carav1.Node {
		return &carav1.Node{Metadata: &carav1.ObjectMeta{Name: name}, Status: &carav1.NodeStatus{State: state, Info: &carav1.NodeInfo{PortOffer: offer}, Ports: ports}}
	}
	port := func(project, problem string) *carav1.NodePort {
		return &carav1.NodePort{Protocol: api.ProtocolTCP, Port: 22, Scope: api.ScopePublic, Project: project, Problem: problem}
	}
	public, internal := &carav1.PortOffer{Ports: []string{"20-30"}, PublicAddress: "::"}, &carav1.PortOffer{Ports: []string{"22"}, InternalAddress: "::"}
	for name, tt := range map[string]struct {
		nodes        []*carav1.Node
		reason, text string
	}{
		"no node":                     {nil, api.ReasonPortNotOffered, "--ports 22 and --ports-public ADDRESS"},
		"another scope":               {[]*carav1.Node{node("a", api.NodeReady, internal, port("p", ""))}, api.ReasonPortNotOffered, "no node offers"},
		"a node that is away":         {[]*carav1.Node{node("a", api.NodeNotReady, public, port("p", ""))}, api.ReasonPortNotOffered, "not connected offer TCP port 22 (Public): a"},
		"not reported yet":            {[]*carav1.Node{node("a", api.NodeReady, public)}, api.ReasonPortOpening, "node a opens it"},
		"still of another project":    {[]*carav1.Node{node("a", api.NodeReady, public, port("q", ""))}, api.ReasonPortOpening, "node a opens it"},
		"open":                        {[]*carav1.Node{node("a", api.NodeReady, public, port("p", ""))}, api.ReasonPortsOpen, "TCP port 22 (Public) on a"},
		"open on a draining node":     {[]*carav1.Node{node("a", api.NodeDraining, public, port("p", ""))}, api.ReasonPortsOpen, "on a"},
		"open on one, failing on two": {[]*carav1.Node{node("a", api.NodeReady, public, port("p", "")), node("b", api.NodeReady, public, port("p", "taken"))}, api.ReasonPortNotOpen, "on node b: taken"},
	} {
		got := api.PortsCondition(project, tt.nodes)
		if got.GetReason() != tt.reason || !strings.Contains(got.GetMessage(), tt.text) || (got.GetStatus() == api.StatusTrue) != (tt.reason == api.ReasonPortsOpen) {
			t.Errorf("%s: got %v, want %s %q", name, got, tt.reason, tt.text)
		}
	}
	if got := api.PortsCondition(&carav1.Project{}, nil); got != nil {
		t.Errorf("a project without ports has %v", got)
	}
}

// TestUDPPortsCondition: a node must offer the protocol too, and the agent that runs the project must know it.
func TestUDPPortsCondition(t *testing.T) {
	project := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "p"}, Status: &carav1.ProjectStatus{NodeRef: "b"},
		Spec: &carav1.ProjectSpec{Ports: []*carav1.ProjectPort{{Protocol: api.ProtocolUDP, Port: 53}}},
	}
	node := func(name string, protocols []string, ports ...string) *carav1.Node {
		offer := &carav1.PortOffer{Ports: ports, InternalAddress: "::", Protocols: protocols}
		open := &carav1.NodePort{Protocol: api.ProtocolUDP, Port: 53, Scope: api.ScopeInternal, Project: "p"}
		return &carav1.Node{Metadata: &carav1.ObjectMeta{Name: name}, Status: &carav1.NodeStatus{State: api.NodeReady, Info: &carav1.NodeInfo{PortOffer: offer}, Ports: []*carav1.NodePort{open}}}
	}
	all := api.PortProtocols()
	for name, tt := range map[string]struct {
		nodes        []*carav1.Node
		reason, text string
	}{
		"open":                               {[]*carav1.Node{node("a", all, "53/udp"), node("b", all)}, api.ReasonPortsOpen, "UDP port 53 (Internal) on a"},
		"the TCP port":                       {[]*carav1.Node{node("a", all, "53"), node("b", all)}, api.ReasonPortNotOffered, "--ports 53/udp and --ports-internal ADDRESS"},
		"an old agent offers it":             {[]*carav1.Node{node("a", nil, "53/udp"), node("b", all)}, api.ReasonPortNotOffered, "no node offers UDP port 53"},
		"an old agent runs it":               {[]*carav1.Node{node("a", all, "53/udp"), node("b", nil)}, api.ReasonPortNotOpen, "node b runs the project, and its cara-agent is too old for UDP ports; update it"},
		"its node says nothing about itself": {[]*carav1.Node{node("a", all, "53/udp"), {Metadata: &carav1.ObjectMeta{Name: "b"}}}, api.ReasonPortsOpen, "on a"},
	} {
		got := api.PortsCondition(project, tt.nodes)
		if got.GetReason() != tt.reason || !strings.Contains(got.GetMessage(), tt.text) {
			t.Errorf("%s: got %v, want %s %q", name, got, tt.reason, tt.text)
		}
	}
}
