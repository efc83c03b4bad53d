package git

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// refusedAddress says that a name led to an address that sources may not reach.
type refusedAddress struct{ addr netip.Addr }

func (e *refusedAddress) Error() string {
	return fmt.Sprintf("address %s is loopback, link-local or private", e.addr)
}

// dialer connects only to public addresses and those in allow. The check is made on the address that is connected
// to, so neither a name that resolves differently the second time nor a redirect gets around it.
func dialer(allow []netip.Prefix, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{
		Timeout: timeout,
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("parse address %q: %w", address, err)
			}
			if addr := ap.Addr().Unmap().WithZone(""); !reachable(addr, allow) {
				return &refusedAddress{addr}
			}
			return nil
		},
	}
	return d.DialContext
}

func reachable(addr netip.Addr, allow []netip.Prefix) bool {
	for _, p := range allow {
		if p.Contains(addr) {
			return true
		}
	}
	for _, p := range special() {
		if p.Contains(addr) {
			return false
		}
	}
	return addr.IsGlobalUnicast() && !addr.IsPrivate()
}

// special are the ranges beside the private ones that never lead to a public git server.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"), // carrier NAT, also cloud metadata
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("64:ff9b::/96"), // NAT64 hides any IPv4 address
		netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("2002::/16"), // 6to4, likewise
		netip.MustParsePrefix("2001::/32"),
	}
}
