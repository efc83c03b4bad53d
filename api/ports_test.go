package api_test

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestPortRanges(t *testing.T) {
	for entry, want := range map[string]struct {
		problem string
		has     []int32
		lacks   []int32
	}{
		"22":          {"", []int32{22}, []int32{21, 23, 0}},
		"25565-25570": {"", []int32{25565, 25567, 25570}, []int32{25564, 25571}},
		"1-65535":     {"", []int32{1, 65535}, []int32{0}},
		"65536":       {"write a TCP port from 1 to 65535", nil, []int32{0, 65535}},
		"0":           {"write a TCP port", nil, []int32{0}},
		"5-4":         {"write a TCP port", nil, []int32{4, 5}},
		"":            {"write a TCP port", nil, []int32{0}},
		"-":           {"write a TCP port", nil, []int32{0}},
		"+5":          {"write a TCP port", nil, []int32{5}},
		"05":          {"write a TCP port", nil, []int32{5}},
		"22/tcp":      {"all ports are TCP ports: write 22", nil, []int32{22}},
		"22/udp":      {"write a TCP port", nil, []int32{22}},
	} {
		if got := api.PortRangeProblem(entry); (got == "") != (want.problem == "") || !strings.Contains(got, want.problem) {
			t.Errorf("%q: got %q, want %q", entry, got, want.problem)
		}
		for _, port := range want.has {
			if !api.PortInRanges([]string{"7", entry}, port) {
				t.Errorf("%q lacks %d", entry, port)
			}
		}
		for _, port := range want.lacks {
			if api.PortInRanges([]string{entry}, port) {
				t.Errorf("%q has %d", entry, port)
			}
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
