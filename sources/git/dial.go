package git

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// refusedAddress means that a name resolved to an address that sources may not reach.
type refusedAddress struct{ addr netip.Addr }

func (e *refusedAddress) Error() string {
	return fmt.Sprintf("address %s is loopback, link-local or private", e.addr)
}

// dialer connects only to public addresses and to those in allow. It checks the address at the time of the connection, so a
// redirect or a second, different resolution of the name cannot bypass the check.
func dialer(allow []netip.Prefix, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{
		Timeout: timeout,
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("parse address %q: %w", address, err)
			}
			return checkAddress(ap.Addr(), allow)
		},
	}
	return d.DialContext
}

// checkAddress returns an error for an address that sources may not reach.
func checkAddress(addr netip.Addr, allow []netip.Prefix) error {
	if addr = addr.Unmap().WithZone(""); !reachable(addr, allow) {
		return &refusedAddress{addr}
	}
	return nil
}

// checkHost is checkAddress for a host that someone else resolves, such as a proxy. It can check only the host itself. It
// covers address forms that netip does not parse but resolvers do, such as 127.1 and 0x7f000001.
func checkHost(host string, allow []netip.Prefix) error {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return checkAddress(addr, allow)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	numeric := strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == ""
	if last == "localhost" || numeric {
		return checkAddress(netip.AddrFrom4([4]byte{127, 0, 0, 1}), allow)
	}
	return nil
}

// reachable reports whether sources may connect to an address: it is in allow, or it is public. An IPv6 address that embeds
// an IPv4 address is judged by that address too.
func reachable(addr netip.Addr, allow []netip.Prefix) bool {
	addr = addr.Unmap().WithZone("")
	if slices.ContainsFunc(allow, func(p netip.Prefix) bool { return plain(p).Contains(addr) }) {
		return true
	}
	if inner, ok := embedded(addr); ok {
		return reachable(inner, allow)
	}
	if slices.ContainsFunc(special(), func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return false
	}
	return addr.Is4() && addr.IsGlobalUnicast() || globalUnicast().Contains(addr)
}

// plain returns an IPv4-mapped prefix such as ::ffff:127.0.0.0/104 as an IPv4 prefix.
func plain(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// embedded returns the IPv4 address that a translator or tunnel derives from an IPv6 address. With NAT64, public addresses
// must stay reachable: a host without IPv4 has no others.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() {
		return netip.Addr{}, false
	}
	b := addr.As16()
	at := func(i int) (netip.Addr, bool) { return netip.AddrFrom4([4]byte(b[i : i+4])), true }
	within := func(prefix string) bool { return netip.MustParsePrefix(prefix).Contains(addr) }
	switch {
	case within("64:ff9b::/96"), within("::ffff:0:0:0/96"): // NAT64, SIIT
		return at(12)
	case within("2002::/16"): // 6to4
		return at(2)
	case b[8]&0xfd == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe && within("2000::/3"): // ISATAP
		return at(12)
	}
	return netip.Addr{}, false
}

// globalUnicast is the IPv6 space assigned for public use. Other addresses are local, reserved, or an obsolete form of an
// IPv4 address such as ::127.0.0.1.
func globalUnicast() netip.Prefix { return netip.MustParsePrefix("2000::/3") }

// special returns the ranges that never contain a public git server, from IANA's registries of special-purpose addresses.
func special() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range []string{
		"0.0.0.0/8", "10.0.0.0/8",
		"100.64.0.0/10", // carrier NAT, also cloud metadata
		"127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", // Teredo and other protocols
		"2001:db8::/32", "3fff::/20",
	} {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}
