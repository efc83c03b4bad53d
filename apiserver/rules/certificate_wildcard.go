package rules

import (
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// The hosts under a wildcard share one certificate and one CertificateOrder, whose name is the wildcard. The projects of these
// hosts can be many, so each of them is updated in a transaction of its own, after that of the order.

// orderOf returns the name of the certificate that agents use for a host, and what was done to obtain it. If there is none, it
// returns those of the certificate that the host is to get.
func orderOf(t *state.Tx, host string) (string, *carav1.CertificateOrder) {
	own, _ := state.Read[*carav1.CertificateOrder](t, host)
	wildcard := api.WildcardOf(host)
	if wildcard == "" {
		return host, own
	}
	shared, _ := state.Read[*carav1.CertificateOrder](t, wildcard)
	valid := func(o *carav1.CertificateOrder) bool {
		return o.GetNotAfter() != nil && t.Now.Before(o.GetNotAfter().AsTime())
	}
	if !valid(own) && (valid(shared) || wildcard == t.Hosts.Wildcard) { // agents prefer an exact name
		return wildcard, shared
	}
	return host, own
}

// OrderName returns the name of an order before or after a change.
func OrderName(old, now *carav1.CertificateOrder) string {
	if now != nil {
		return now.GetMetadata().GetName()
	}
	return old.GetMetadata().GetName()
}
