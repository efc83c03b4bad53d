package dispatch

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ingressSecrets records which Secrets the ingress rules of projects use.
type ingressSecrets struct {
	of    map[string]projectSecrets      // by project
	certs map[string]map[string][]string // by Secret of type tls and project: the hosts
	lists map[string]int                 // by Secret of type basicAuth: the number of projects
}

// projectSecrets are the Secrets that the ingress rules of one project use.
type projectSecrets struct {
	hosts map[string][]string // by Secret of type tls: full hosts that the project has claimed
	lists []string
}

func newIngressSecrets() ingressSecrets {
	return ingressSecrets{of: map[string]projectSecrets{}, certs: map[string]map[string][]string{}, lists: map[string]int{}}
}

// put replaces what a project uses, and returns the Secrets that are concerned. p is nil if the project does not exist.
func (s ingressSecrets) put(name string, p *carav1.Project, template api.HostTemplate) []string {
	old, next := s.of[name], secretsOf(p, template)
	for secret := range old.hosts {
		delete(s.certs[secret], name)
		if len(s.certs[secret]) == 0 {
			delete(s.certs, secret)
		}
	}
	for secret, hosts := range next.hosts {
		if s.certs[secret] == nil {
			s.certs[secret] = map[string][]string{}
		}
		s.certs[secret][name] = hosts
	}
	for _, secret := range old.lists {
		if s.lists[secret]--; s.lists[secret] == 0 {
			delete(s.lists, secret)
		}
	}
	for _, secret := range next.lists {
		s.lists[secret]++
	}
	if s.of[name] = next; len(next.hosts) == 0 && len(next.lists) == 0 {
		delete(s.of, name)
	}
	all := slices.Concat(slices.Collect(maps.Keys(old.hosts)), slices.Collect(maps.Keys(next.hosts)), old.lists, next.lists)
	slices.Sort(all)
	return slices.Compact(all)
}

// hosts returns the hosts for which projects use a Secret of type tls, sorted.
func (s ingressSecrets) hosts(secret string) []string {
	all := slices.Concat(slices.Collect(maps.Values(s.certs[secret]))...)
	slices.Sort(all)
	return slices.Compact(all)
}

// names returns all Secrets in use.
func (s ingressSecrets) names() []string {
	return slices.Concat(slices.Collect(maps.Keys(s.certs)), slices.Collect(maps.Keys(s.lists)))
}

// secretsOf returns the Secrets that a project's ingress rules use. A project that is being deleted uses none.
func secretsOf(p *carav1.Project, template api.HostTemplate) projectSecrets {
	out := projectSecrets{hosts: map[string][]string{}}
	if phase := p.GetStatus().GetPhase(); phase == api.PhaseTerminating || phase == api.PhaseTerminated {
		return out
	}
	for _, in := range p.GetSpec().GetIngress() {
		host := template.Host(in.GetHost())
		if !slices.Contains(p.GetStatus().GetHosts(), host) {
			continue
		}
		if secret := in.GetTls().GetSecretRef(); secret != "" && api.Public(in) {
			out.hosts[secret] = append(out.hosts[secret], host)
		}
		if secret := in.GetAccess().GetBasicAuth().GetSecretRef(); secret != "" {
			out.lists = append(out.lists, secret)
		}
	}
	slices.Sort(out.lists)
	out.lists = slices.Compact(out.lists)
	return out
}

func (c credential) compare(other credential) int {
	return cmp.Or(cmp.Compare(c.kind, other.kind), cmp.Compare(c.id, other.id))
}

// secretPrefix begins the ids of the certificates of Secrets.
const secretPrefix = "secret/"

func secretCertificate(secret string) string { return secretPrefix + secret }

func certificateSecret(id string) (secret string, ok bool) {
	return strings.CutPrefix(id, secretPrefix)
}
