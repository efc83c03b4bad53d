// Package networks checks the addresses of clients against access lists, for the listeners of an agent.
package networks

import (
	"net/netip"
	"slices"
)

// List is an access list. The zero value has every address.
type List struct {
	limited  bool
	prefixes []netip.Prefix
}

// Parse parses an access list. An entry that cannot be parsed has no address: the server may be newer than this agent.
func Parse(list []string) List {
	n := List{limited: len(list) > 0}
	for _, entry := range list {
		if p, err := netip.ParsePrefix(entry); err == nil {
			n.prefixes = append(n.prefixes, p)
		}
	}
	return n
}

// Has reports whether the list has a client's address. Only an unlimited list has a client whose address is not known.
func (n List) Has(client string) bool {
	if !n.limited {
		return true
	}
	address, err := netip.ParseAddr(client)
	if err != nil {
		return false
	}
	address = address.Unmap().WithZone("")
	return slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Contains(address) })
}
