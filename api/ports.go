package api

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Protocols of ports. TCP is the default.
const (
	ProtocolTCP = "TCP"
	ProtocolUDP = "UDP"
)

// udpSuffix distinguishes UDP ports in lists of ports.
const udpSuffix = "/udp"

// PortKey identifies what one project in the cluster can claim.
type PortKey struct {
	Protocol string
	Port     int32
	Scope    string
}

// KeyOfPort returns what a port of a project claims.
func KeyOfPort(p *carav1.ProjectPort) PortKey {
	return PortKey{cmp.Or(p.GetProtocol(), ProtocolTCP), p.GetPort(), cmp.Or(p.GetScope(), ScopeInternal)}
}

// String returns the key for messages: `TCP port 5432 (Internal)`.
func (k PortKey) String() string { return fmt.Sprintf("%s port %d (%s)", k.Protocol, k.Port, k.Scope) }

// Name returns the key as a name in the store: `TCP/5432/Internal`.
func (k PortKey) Name() string { return k.Protocol + "/" + strconv.Itoa(int(k.Port)) + "/" + k.Scope }

// Entry returns the key as an entry of a list of ports: `5432`, or `19132/udp`.
func (k PortKey) Entry() string {
	if k.Protocol == ProtocolUDP {
		return strconv.Itoa(int(k.Port)) + udpSuffix
	}
	return strconv.Itoa(int(k.Port))
}

// Compare orders keys by port, protocol and scope.
func (k PortKey) Compare(other PortKey) int {
	return cmp.Or(cmp.Compare(k.Port, other.Port), strings.Compare(k.Protocol, other.Protocol), strings.Compare(k.Scope, other.Scope))
}

// PortKeys returns what a spec claims, sorted.
func PortKeys(s *carav1.ProjectSpec) []PortKey {
	var keys []PortKey
	for _, p := range s.GetPorts() {
		keys = append(keys, KeyOfPort(p))
	}
	slices.SortFunc(keys, PortKey.Compare)
	return slices.Compact(keys)
}

// PortRangeProblem returns what is wrong with an entry of a list of ports, or "".
func PortRangeProblem(entry string) string {
	if _, _, ok := portRange(strings.TrimSuffix(entry, udpSuffix)); ok {
		return ""
	}
	head, tail, _ := strings.Cut(entry, "/")
	if _, _, ok := portRange(head); ok {
		switch strings.ToLower(tail) {
		case "tcp":
			return fmt.Sprintf("is %q; TCP ports have no suffix: write %s", text.Short(entry), head)
		case "udp":
			return fmt.Sprintf("is %q; write %s%s", text.Short(entry), head, udpSuffix)
		}
	}
	return fmt.Sprintf("is %q; write a port from 1 to 65535 or a range such as 25565-25570, with /udp for UDP", text.Short(entry))
}

// portRange parses `5432` or `25565-25570`.
func portRange(entry string) (from, to int32, ok bool) {
	first, last, isRange := strings.Cut(entry, "-")
	if !isRange {
		last = first
	}
	from, ok = portNumber(first)
	if !ok {
		return 0, 0, false
	}
	to, ok = portNumber(last)
	return from, to, ok && from <= to
}

func portNumber(s string) (int32, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int32(n), err == nil && n > 0 && s[0] != '+' && s[0] != '0'
}

// PortInRanges reports whether a list of ports and ranges has a port. Entries without `/udp` are for TCP. Entries that cannot be
// parsed have none.
func PortInRanges(list []string, k PortKey) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		ports, udp := strings.CutSuffix(entry, udpSuffix)
		from, to, ok := portRange(ports)
		return ok && udp == (k.Protocol == ProtocolUDP) && from <= k.Port && k.Port <= to
	})
}

// PortProtocols returns the protocols of ports that this version of the agent serves.
func PortProtocols() []string { return []string{ProtocolTCP, ProtocolUDP} }

// ServesProtocol reports whether an agent serves the ports of a protocol. Agents of older versions do not say which; they serve
// TCP, or nothing if they have no offer.
func ServesProtocol(o *carav1.PortOffer, protocol string) bool {
	if len(o.GetProtocols()) == 0 {
		return o != nil && protocol == ProtocolTCP
	}
	return slices.Contains(o.GetProtocols(), protocol)
}

// OffersPort reports whether a node may open a port.
func OffersPort(o *carav1.PortOffer, k PortKey) bool {
	return ServesProtocol(o, k.Protocol) && PortAddress(o, k.Scope) != "" && PortInRanges(o.GetPorts(), k)
}

// PortAddress returns the IP address on which a node opens the ports of a scope, or "" if it opens none.
func PortAddress(o *carav1.PortOffer, scope string) string {
	switch scope {
	case ScopeInternal:
		return o.GetInternalAddress()
	case ScopePublic:
		return o.GetPublicAddress()
	}
	return ""
}

// PortAddressFlag returns the flag of cara-agent for PortAddress.
func PortAddressFlag(scope string) string {
	if scope == ScopePublic {
		return "--ports-public"
	}
	return "--ports-internal"
}

// PortAllowed reports whether a source may claim a port.
func PortAllowed(allow *carav1.SourceAllow, k PortKey) bool {
	if k.Scope == ScopePublic {
		return PortInRanges(allow.GetPublicPorts(), k)
	}
	return len(allow.GetPorts()) == 0 || PortInRanges(allow.GetPorts(), k)
}

// PortsCondition returns the condition PortsReady of a project, or nil if its spec has no ports. nodes are all nodes of the
// cluster, sorted by name.
func PortsCondition(project *carav1.Project, nodes []*carav1.Node) *carav1.Condition {
	keys := PortKeys(project.GetSpec())
	if len(keys) == 0 {
		return nil
	}
	var open []string
	for _, k := range keys {
		on, failed := portOn(project, k, nodes)
		if failed == nil {
			failed = servedBy(project, k, nodes)
		}
		switch {
		case failed != nil:
			return failed
		case len(on) > 0:
			open = append(open, fmt.Sprintf("%s on %s", k, strings.Join(on, ", ")))
		}
	}
	return NewCondition(CondPortsReady, StatusTrue, ReasonPortsOpen, clipList(open))
}

// portOn returns the nodes that have opened a port of a project, or the condition that says why none has, or why one that
// offers it has not.
func portOn(project *carav1.Project, k PortKey, nodes []*carav1.Node) (on []string, failed *carav1.Condition) {
	var waiting, away []string
	for _, n := range nodes {
		if !OffersPort(n.GetStatus().GetInfo().GetPortOffer(), k) {
			continue
		}
		name, said := n.GetMetadata().GetName(), nodePort(n, k)
		switch {
		case n.GetStatus().GetState() == NodeNotReady:
			away = append(away, name)
		case said.GetProject() != project.GetMetadata().GetName():
			waiting = append(waiting, name)
		case said.GetProblem() != "":
			return nil, NewCondition(CondPortsReady, StatusFalse, ReasonPortNotOpen, fmt.Sprintf("%s is not open on node %s: %s", k, name, said.GetProblem()))
		default:
			on = append(on, name)
		}
	}
	switch {
	case len(on) > 0:
		return on, nil
	case len(waiting) > 0:
		return nil, NewCondition(CondPortsReady, StatusFalse, ReasonPortOpening, fmt.Sprintf("%s: waiting until node %s opens it", k, strings.Join(waiting, ", ")))
	case len(away) > 0:
		return nil, NewCondition(CondPortsReady, StatusFalse, ReasonPortNotOffered,
			fmt.Sprintf("only nodes that are not connected offer %s: %s; start cara-agent there", k, strings.Join(away, ", ")))
	}
	return nil, NewCondition(CondPortsReady, StatusFalse, ReasonPortNotOffered,
		fmt.Sprintf("no node offers %s; start a cara-agent with --ports %s and %s ADDRESS, or choose a port that a node offers (caractrl describe node NAME)",
			k, k.Entry(), PortAddressFlag(k.Scope)))
}

// servedBy returns a condition if the agent of the project's node does not know the protocol of a port: it is of an older version.
func servedBy(project *carav1.Project, k PortKey, nodes []*carav1.Node) *carav1.Condition {
	for _, n := range nodes {
		info := n.GetStatus().GetInfo()
		if n.GetMetadata().GetName() == project.GetStatus().GetNodeRef() && info != nil && !ServesProtocol(info.GetPortOffer(), k.Protocol) {
			return NewCondition(CondPortsReady, StatusFalse, ReasonPortNotOpen,
				fmt.Sprintf("%s: node %s runs the project, and its cara-agent is too old for %s ports; update it", k, n.GetMetadata().GetName(), k.Protocol))
		}
	}
	return nil
}

// nodePort returns what a node has reported about a port, or nil.
func nodePort(n *carav1.Node, k PortKey) *carav1.NodePort {
	for _, p := range n.GetStatus().GetPorts() {
		if (PortKey{p.GetProtocol(), p.GetPort(), p.GetScope()}) == k {
			return p
		}
	}
	return nil
}

// NodePortsCondition returns the condition PortsReady of a node with ports that it cannot open, or nil if there are none.
func NodePortsCondition(ports []*carav1.NodePort) *carav1.Condition {
	var failed []string
	for _, p := range ports {
		if p.GetProblem() != "" {
			failed = append(failed, fmt.Sprintf("%s of project %s: %s", PortKey{p.GetProtocol(), p.GetPort(), p.GetScope()}, p.GetProject(), p.GetProblem()))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return NewCondition(CondPortsReady, StatusFalse, ReasonPortNotOpen, clipList(failed))
}

// maxListed limits how many ports a condition names.
const maxListed = 5

func clipList(all []string) string {
	if more := len(all) - maxListed; more > 0 {
		return strings.Join(all[:maxListed], "; ") + fmt.Sprintf("; and %d more", more)
	}
	return strings.Join(all, "; ")
}
