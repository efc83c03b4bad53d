package dispatch

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// hostEntry is what agents learn about one host. It is immutable, and shared by all sessions.
type hostEntry struct {
	away, here []byte // the host in a message Routes, encoded: for agents elsewhere, and for those on the server's host
	needs      []credential
	nodes      []string
}

// newHostEntry returns the entry for the routes of a host, or nil if there are none.
func newHostEntry(host string, routes []*carav1.Route, uses ingressSecrets) *hostEntry {
	if len(routes) == 0 {
		return nil
	}
	e := &hostEntry{here: encodeHost(host, routes), needs: needsOf(host, routes, uses)}
	e.away = e.here
	elsewhere, differs := slices.Clone(routes), false
	for i, r := range routes {
		if classify(r.GetIngressAddress()) == addressLoopback {
			r = proto.CloneOf(r)
			r.IngressAddress = ""
			elsewhere[i], differs = r, true
		}
		if node := r.GetNode(); node != "" && !slices.Contains(e.nodes, node) {
			e.nodes = append(e.nodes, node)
		}
	}
	if differs {
		e.away = encodeHost(host, elsewhere)
	}
	return e
}

func (e *hostEntry) same(other *hostEntry) bool {
	if e == nil || other == nil {
		return e == other
	}
	return bytes.Equal(e.here, other.here) && bytes.Equal(e.away, other.away) && slices.Equal(e.needs, other.needs)
}

func (e *hostEntry) leadsTo() []string {
	if e == nil {
		return nil
	}
	return e.nodes
}

// encodeHost encodes the routes of a host as a message Routes.
func encodeHost(host string, routes []*carav1.Route) []byte {
	msg := &carav1.Routes{}
	addHost(msg, host, routes)
	return encodeRoutes(msg)
}

func encodeRoutes(msg *carav1.Routes) []byte {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil { // only for a text that is not UTF-8, which validation excludes
		return nil
	}
	return encoded
}

// needsOf returns the credentials with which an agent can serve the routes of a host, sorted.
func needsOf(host string, routes []*carav1.Route, uses ingressSecrets) []credential {
	var all []credential
	for _, r := range routes {
		if list := r.GetPasswordList(); list != "" {
			all = append(all, credential{kindPasswordList, list})
		}
		if r.GetScope() != api.ScopePublic {
			continue
		}
		all = append(all, credential{state.KindCertificate, objects.ObtainedCertificate(host)})
		if wildcard := api.WildcardOf(host); wildcard != "" {
			all = append(all, credential{state.KindCertificate, objects.ObtainedCertificate(wildcard)})
		}
		for secret, hosts := range uses.of[r.GetProject()].hosts {
			if slices.Contains(hosts, host) {
				all = append(all, credential{state.KindCertificate, secretCertificate(secret)})
			}
		}
	}
	slices.SortFunc(all, credential.compare)
	return slices.Compact(all)
}
