package program

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/caravanserai/cara/agent/ingress"
	"github.com/caravanserai/cara/agent/networks"
	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxPortRanges is how many entries --ports can have, as in PortOffer.
const maxPortRanges = 100

// checkPorts reports flags for ports that are not usable.
func (c *AgentConfig) checkPorts() error {
	if len(c.Ports) > maxPortRanges {
		return fmt.Errorf("--ports has %d entries, at most %d are allowed; write ranges such as 25565-25570", len(c.Ports), maxPortRanges)
	}
	for _, entry := range c.Ports {
		if why := api.PortRangeProblem(entry); why != "" {
			return fmt.Errorf("--ports %s", why)
		}
	}
	internal, err := portAddress("--ports-internal", c.PortsInternal)
	if err != nil {
		return err
	}
	public, err := portAddress("--ports-public", c.PortsPublic)
	switch both := internal.IsValid() && public.IsValid(); {
	case err != nil:
		return err
	case len(c.Ports) > 0 && !internal.IsValid() && !public.IsValid():
		return errors.New("--ports needs an address: give --ports-internal ADDRESS, --ports-public ADDRESS or both")
	case len(c.Ports) == 0 && (internal.IsValid() || public.IsValid()):
		return errors.New("--ports-internal and --ports-public need --ports: name the ports that projects may use, such as --ports 5432,25565-25570")
	case both && (internal == public || internal.IsUnspecified() || public.IsUnspecified()):
		return fmt.Errorf("--ports-internal %s and --ports-public %s have an address in common: give each scope an address of its own", internal, public)
	case c.PortsIdle < 0:
		return errors.New("--ports-idle must not be negative")
	case c.PortsUDPIdle < 0:
		return errors.New("--ports-udp-idle must not be negative")
	}
	return nil
}

// checkProxyProtocol reports load balancers that cannot be meant, or that could send nothing to this agent.
func (c *AgentConfig) checkProxyProtocol() (err error) {
	if c.balancers, err = proxyheader.Parse(c.ProxyProtocolFrom); err != nil {
		return fmt.Errorf("--proxy-protocol-from %w", err)
	}
	if len(c.ProxyProtocolFrom) > 0 && c.IngressListen == "" && len(c.Ports) == 0 {
		return errors.New("--proxy-protocol-from needs an address that load balancers can connect to: give --ingress-listen or --ports")
	}
	return nil
}

func portAddress(flag, address string) (netip.Addr, error) {
	if address == "" {
		return netip.Addr{}, nil
	}
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Zone() != "" || ip.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%s %q: want an IP address of this machine without a port, such as 192.0.2.7, or 0.0.0.0 for all IPv4 addresses", flag, address)
	}
	return ip, nil
}

// passedHosts are the hosts whose TLS connections are passed on. Without an ingress, there are none.
type passedHosts struct{ ingress *ingress.Ingress }

// Passed returns the route of a host and its access list.
func (h *passedHosts) Passed(host string, public bool) (*carav1.Route, networks.List) {
	if h.ingress == nil {
		return nil, networks.List{}
	}
	return h.ingress.Passed(host, public)
}

// Passes reports whether a project has such a host.
func (h *passedHosts) Passes(project string) bool {
	return h.ingress != nil && h.ingress.Passes(project)
}
