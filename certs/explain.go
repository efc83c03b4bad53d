package certs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mholt/acmez/v3/acme"

	"github.com/caravanserai/cara/internal/text"
)

// notReady is why the authority was not asked to validate a host. Its text is for people.
type notReady struct{ why string }

func (e notReady) Error() string { return e.why }

// advice says what to do about an answer of the authority, by the type of the problem.
var advice = map[string]string{ //nolint:gochecknoglobals // a table that never changes
	acme.ProblemTypeConnection:              "clients of the internet must reach the host on port 80: check firewalls, and what listens there",
	acme.ProblemTypeDNS:                     "check the DNS records of the host, also as the internet sees them",
	acme.ProblemTypeUnauthorized:            "something other than this cluster answers for the host: check its DNS records and proxies",
	acme.ProblemTypeIncorrectResponse:       "something other than this cluster answers for the host: check its DNS records and proxies",
	acme.ProblemTypeCAA:                     "a CAA record in DNS allows only other authorities: add this one to it",
	acme.ProblemTypeRateLimited:             "the authority has a limit for this; the next try is after the time it named",
	acme.ProblemTypeRejectedIdentifier:      "the authority gives no certificates for such a host: use another host, or a Secret with tls.secretRef",
	acme.ProblemTypeInvalidContact:          "check --acme-email",
	acme.ProblemTypeUnsupportedContact:      "check --acme-email",
	acme.ProblemTypeExternalAccountRequired: "this authority issues certificates only to its customers: get a key for an external account from it, and start cara-server with --acme-eab-key-id and --acme-eab-key-file",
	acme.ProblemTypeUserActionRequired:      "the authority wants a person to do something, such as agreeing to new terms",
	acme.ProblemTypeAccountDoesNotExist:     "the account is registered again at the next try",
	acme.ProblemTypeServerInternal:          "the authority has a problem of its own",
}

// dnsAdvice replaces the advice where the authority validates hosts by DNS records.
var dnsAdvice = map[string]string{ //nolint:gochecknoglobals // a table that never changes
	acme.ProblemTypeConnection:        "the internet must reach the DNS servers of the host",
	acme.ProblemTypeDNS:               "check the DNS servers of the host, as the internet sees them",
	acme.ProblemTypeUnauthorized:      "the authority sees another TXT record than this server: check that --acme-dns changes the zone that the internet sees, and --acme-dns-check",
	acme.ProblemTypeIncorrectResponse: "the authority sees another TXT record than this server: check that --acme-dns changes the zone that the internet sees, and --acme-dns-check",
}

// explain returns what is wrong, in words for people, and whether the authority may have counted the attempt.
func explain(directory string, byDNS bool, err error) (problem string, ordered bool) {
	if e, ok := errors.AsType[notReady](err); ok {
		return e.why, true // there is an order, though nobody validated it
	}
	if p, ok := errors.AsType[acme.Problem](err); ok {
		return ofProblem(directory, byDNS, p), true
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("the authority at %s has not finished within %s", directory, orderAtMost), true
	}
	return fmt.Sprintf("the authority at %s cannot be used: %v", directory, text.Innermost(err)), false
}

func ofProblem(directory string, byDNS bool, p acme.Problem) string {
	kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
	said := fmt.Sprintf("the authority at %s answered %s: %s", directory, kind, strings.TrimRight(p.Detail, ". "))
	for _, sub := range p.Subproblems {
		if sub.Detail != "" && !strings.Contains(said, sub.Detail) {
			said += "; " + strings.TrimRight(sub.Detail, ". ")
		}
	}
	do := advice[p.Type]
	if instead := dnsAdvice[p.Type]; byDNS && instead != "" {
		do = instead
	}
	if do != "" {
		return said + " (" + do + ")"
	}
	return said
}
