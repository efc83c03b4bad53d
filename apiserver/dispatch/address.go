package dispatch

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The server sends a node's ingress address to the agents of all other nodes. A node must not use that to make them connect
// to addresses that only they can reach. TLS between agents protects the data; the following rule prevents the connection:
//
//   - Link-local, unspecified, multicast and broadcast addresses are never sent. Metadata services of clouds are link-
//     local.
//   - A loopback address means a different machine to each agent. The server accepts it from an agent on its own host and
//     sends it to agents on that host. So a cluster on one machine works.

// onThisHost reports whether an agent runs on the server's host. If the servers of a cluster run on several hosts, a loopback address
// means another machine to the agents of another server, so none counts.
func (d *Dispatcher) onThisHost(ctx context.Context) bool {
	if !admission.OnThisHost(ctx) {
		return false
	}
	if d.Directory == nil {
		return true
	}
	servers := d.Directory.Servers()
	own := servers[d.Directory.Self()]
	for _, other := range servers {
		if other.GetHost() != own.GetHost() {
			return false
		}
	}
	return true
}

// addressIs is the kind of an ingress address that a node reports.
type addressIs int

const (
	addressUsable addressIs = iota
	addressLoopback
	addressUnusable
)

// classify returns the kind of an ingress address that a node reports. The agent that connects resolves host names.
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

// embedded returns the IPv4 address inside an IPv6 address such as ::ffff:127.0.0.1 or ::127.0.0.1.
func embedded(ip netip.Addr) netip.Addr {
	ip = ip.WithZone("").Unmap()
	if b := ip.As16(); ip.Is6() && [12]byte(b[:12]) == [12]byte{} && !ip.IsLoopback() {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return ip
}

// looksNumeric reports whether some resolvers read a host name as an IPv4 address: 127.1, 0x7f000001, 2130706433.
func looksNumeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil
}

// addressProblem returns why a node's ingress address is not sent to other agents, or "" if it is sent. here is true if the
// agent runs on the server's host.
func addressProblem(address string, here bool) string {
	const advice = "start cara-agent with --ingress-address HOST:PORT, as the other nodes reach this one"
	kind := classify(address)
	switch {
	case address == "":
		return "" // the node serves no ingress
	case kind == addressUnusable:
		return strconv.Quote(address) + " is not an address that other nodes can reach: " + advice
	case kind == addressLoopback && !here:
		return strconv.Quote(address) + " is loopback, and the agent is not on the server's host: " + advice
	}
	return ""
}

// ingressCondition returns the condition for the ingress address of a heartbeat, or nil if the address is sent to other
// agents.
func ingressCondition(info *carav1.NodeInfo, here bool) *carav1.Condition {
	why := addressProblem(info.GetIngressAddress(), here)
	if why == "" {
		return nil
	}
	return &carav1.Condition{Type: api.CondIngressReachable, Status: api.StatusFalse, Reason: api.ReasonAddressRefused, Message: why}
}

// ingressAddress returns the address where another node's agent reaches n, or "" if it cannot. here is true if that agent
// runs on the server's host.
func ingressAddress(n *carav1.Node, here bool) string {
	address := n.GetStatus().GetInfo().GetIngressAddress()
	refused := api.FindCondition(n.GetStatus().GetConditions(), api.CondIngressReachable).GetStatus() == api.StatusFalse
	if refused || classify(address) == addressLoopback && !here {
		return ""
	}
	return address
}
