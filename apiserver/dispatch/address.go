package dispatch

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The server passes a node's ingress address to the agents of all other nodes, so a node must not be able to send them
// to places that only they can reach. TLS between agents protects what is sent there; this rule keeps them from
// connecting at all:
//
//   - Link-local, unspecified, multicast and broadcast addresses are never passed on. Metadata services of clouds are
//     link-local.
//   - A loopback address means another machine to each agent. It is accepted from an agent on the server's own host and
//     passed on to agents on that host, which makes a cluster on one machine work.

// addressIs is what kind of ingress address a node reports.
type addressIs int

const (
	addressUsable addressIs = iota
	addressLoopback
	addressUnusable
)

// classify looks at an ingress address as a node reports it. A host name is resolved by whoever connects.
func classify(address string) addressIs {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return addressUnusable
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return addressUnusable
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return addressLoopback
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if looksNumeric(name) {
			return addressUnusable
		}
		return addressUsable
	}
	ip = embedded(ip)
	switch {
	case ip.IsLoopback():
		return addressLoopback
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(), ip.Is4() && (ip.As4()[0] == 0 || ip == broadcast()):
		return addressUnusable
	}
	return addressUsable
}

func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// embedded returns the IPv4 address in an IPv6 one that stands for it: ::ffff:127.0.0.1 and ::127.0.0.1.
func embedded(ip netip.Addr) netip.Addr {
	ip = ip.WithZone("").Unmap()
	if b := ip.As16(); ip.Is6() && [12]byte(b[:12]) == [12]byte{} && !ip.IsLoopback() {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return ip
}

// looksNumeric reports whether some resolvers take a host name for an IPv4 address: 127.1, 0x7f000001, 2130706433.
func looksNumeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil
}

// addressProblem says why a node's ingress address is not passed to other agents, or "" if it is; here tells whether the
// agent runs on the server's host.
func addressProblem(address string, here bool) string {
	const advice = "start cara-agent with --ingress-address HOST:PORT, as the other nodes reach this one"
	kind := classify(address)
	switch {
	case address == "":
		return "" // it serves no ingress
	case kind == addressUnusable:
		return strconv.Quote(address) + " is not an address that other nodes can reach: " + advice
	case kind == addressLoopback && !here:
		return strconv.Quote(address) + " is loopback, and the agent is not on the server's host: " + advice
	}
	return ""
}

// ingressCondition is what a heartbeat says of the node's ingress address: nil if the address is passed on.
func ingressCondition(info *carav1.NodeInfo, here bool) *carav1.Condition {
	why := addressProblem(info.GetIngressAddress(), here)
	if why == "" {
		return nil
	}
	return &carav1.Condition{Type: api.CondIngressReachable, Status: api.StatusFalse, Reason: api.ReasonAddressRefused, Message: why}
}

// ingressAddress is where the agent of another node reaches a node; "" if it cannot. here tells whether that agent runs
// on the server's host.
func ingressAddress(n *carav1.Node, here bool) string {
	address := n.GetStatus().GetInfo().GetIngressAddress()
	refused := api.FindCondition(n.GetStatus().GetConditions(), api.CondIngressReachable).GetStatus() == api.StatusFalse
	if refused || classify(address) == addressLoopback && !here {
		return ""
	}
	return address
}
