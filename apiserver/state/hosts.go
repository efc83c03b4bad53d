package state

import (
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Hosts defines how ingress hosts are expanded, and which hosts no project may claim.
type Hosts struct {
	Template api.HostTemplate
	Own      []string // names of the server, in lower case
	Reserved []string // patterns of --reserve-host
	// Obtained is true if the server obtains certificates of public hosts from an authority.
	Obtained bool
	// Wildcard is the name of the certificate that hosts of short ingress rules share; empty if each has its own.
	Wildcard string
}

// Of returns the full ingress hosts of a spec, sorted.
func (h Hosts) Of(spec *carav1.ProjectSpec) []string {
	var hosts []string
	for _, in := range spec.GetIngress() {
		hosts = append(hosts, h.Template.Host(in.GetHost()))
	}
	return slices.Compact(slices.Sorted(slices.Values(hosts)))
}

// Paths returns the claimed paths of a spec's full ingress hosts, by host.
func (h Hosts) Paths(spec *carav1.ProjectSpec) map[string][]string {
	paths := map[string][]string{}
	for _, in := range spec.GetIngress() {
		host := h.Template.Host(in.GetHost())
		if path := api.IngressPath(in.GetPath()); !slices.Contains(paths[host], path) {
			paths[host] = append(paths[host], path)
		}
	}
	return paths
}

// Reserves reports whether a full host name is the server's own or reserved by its operator.
func (h Hosts) Reserves(host string) bool {
	return syntax.MatchAny(h.Own, host) || h.Template.MatchHost(h.Reserved, host)
}
