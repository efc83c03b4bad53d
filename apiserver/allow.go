package apiserver

import (
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// What a project may be called and may use is decided here, in the transaction that writes it, for every way in. Three
// rules meet: what no project may have (permitted), what the project's source may have (sourceMay), and what the person
// who writes may have (mayDeclare).

// maxDenials bounds how many refusals one answer spells out.
const maxDenials = 5

// permitted refuses what no project may have, whoever writes it: a reserved host, a capability that no node allows, and a
// Secret that a source itself uses.
func (t *tx) permitted(p *carav1.Project) error {
	for _, host := range t.server.hostsOf(p.GetSpec()) {
		if t.server.reservedHost(host) {
			return api.NotAllowed("host %q is reserved: it is a name of the server, or cara-server runs with a --reserve-host that covers it; choose another host", host)
		}
	}
	if err := t.offered(p); err != nil {
		return err
	}
	secrets := api.SecretNames(p.GetSpec())
	if len(secrets) == 0 {
		return nil
	}
	users := sourceSecrets(t.Seen)
	for _, secret := range secrets {
		if source, used := users[secret]; used {
			return api.NotAllowed("source %q uses Secret %q for git or webhooks, so no project may use it; put what project %q needs into a Secret of its own",
				source, secret, p.GetMetadata().GetName())
		}
	}
	return nil
}

// offered refuses capabilities that no node allows, whether it is Ready or not. Which node has them all is the scheduler's
// matter.
func (t *tx) offered(p *carav1.Project) error {
	if len(api.ExtraCapabilities(p.GetSpec())) == 0 {
		return nil
	}
	var more []string
	nodes, _ := state.List[*carav1.Node](t.Seen, "", "")
	for _, n := range nodes {
		more = append(more, n.GetStatus().GetInfo().GetAllowedCapabilities()...)
	}
	if bad := api.CapabilityViolations(p, more); len(bad) > 0 {
		return api.Invalid(describe(p), bad)
	}
	return nil
}

// reservedHost reports whether a host, spelled out, is the server's own or one of --reserve-host.
func (s *Server) reservedHost(host string) bool {
	return api.MatchAny(s.cfg.ownHosts, host) || s.cfg.Hosts.MatchHost(s.cfg.ReservedHosts, host)
}

// sourceSecrets maps each Secret that a source uses for git or webhooks to such a source. A source that is created at
// the very same moment as a project can be missing here; assignment withholds the values then.
func sourceSecrets(r state.Reader) map[string]string {
	users := map[string]string{}
	sources, _ := state.List[*carav1.Source](r, "", "")
	for _, src := range sources {
		for _, secret := range api.SourceSecretNames(src.GetSpec()) {
			users[secret] = src.GetMetadata().GetName()
		}
	}
	return users
}

// sourceMay refuses a project that the source's spec.allow does not cover. The source is a condition of the commit: a
// source that is narrowed at the same moment wins.
func (t *tx) sourceMay(source string, p *carav1.Project) error {
	src, ok := read[*carav1.Source](t, source)
	if !ok {
		return api.Conflict("source %q does not exist any more", source)
	}
	denials := api.SourceDenials(source, src.GetSpec().GetAllow(), p, t.server.hostsOf(p.GetSpec()), t.server.cfg.Hosts)
	if len(denials) == 0 {
		return nil
	}
	return api.NotAllowed("%s", strings.Join(denials[:min(len(denials), maxDenials)], "; "))
}

// declaredBySource applies all rules to what a source declares.
func (t *tx) declaredBySource(source string, p *carav1.Project) error {
	if err := t.permitted(p); err != nil { // first: adding it to spec.allow would not help
		return err
	}
	return t.sourceMay(source, p)
}

// mayDeclare applies all rules to what a person declares.
func (t *tx) mayDeclare(p *carav1.Project) error {
	if err := t.actor.MayUse(p); err != nil {
		return err
	}
	if err := t.actor.MayClaim(t.server.hostsOf(p.GetSpec()), t.server.cfg.Hosts); err != nil {
		return err
	}
	return t.permitted(p)
}

// mayRunAgain applies the rules to a project that does not run and that a person wants to run as it is. Its source
// answers for it, unless a person has overridden the source.
func (t *tx) mayRunAgain(p *carav1.Project) error {
	source := sourceOf(p)
	o, _ := read[*carav1.Override](t, p.GetMetadata().GetName())
	if source == "" || o.GetScope() == api.OverrideSpec && plan.InForce(o, t.now) {
		return t.mayDeclare(p)
	}
	return t.declaredBySource(source, p)
}

// unusedByProjects refuses a source that begins to use a Secret for git or webhooks which a project uses.
func (t *tx) unusedByProjects(old, in *carav1.Source) error {
	had := api.SourceSecretNames(old.GetSpec())
	fresh := slices.DeleteFunc(api.SourceSecretNames(in.GetSpec()), func(name string) bool { return slices.Contains(had, name) })
	if len(fresh) == 0 {
		return nil
	}
	projects, _ := state.List[*carav1.Project](t.Seen, "", "")
	for _, p := range projects {
		for _, secret := range api.SecretNames(p.GetSpec()) {
			if slices.Contains(fresh, secret) {
				return api.BadState("project %q uses Secret %q, so source %q cannot use it for git or webhooks; give the source a Secret of its own",
					p.GetMetadata().GetName(), secret, in.GetMetadata().GetName())
			}
		}
	}
	return nil
}
