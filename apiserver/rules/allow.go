package rules

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// The rules for what a project may be called and may use are checked here, in the transaction that writes the project,
// whatever call it comes from. There are three sets of rules: for every project (permitted), for the project's source
// (sourceMay), and for the person who writes (mayDeclare).

// maxDenials limits how many rejections one answer lists.
const maxDenials = 5

// permitted returns an error for what no project may have: a reserved host, a capability that no node allows, or a Secret
// that a source uses itself.
func permitted(t *state.Tx, p *carav1.Project) error {
	for _, host := range t.Hosts.Of(p.GetSpec()) {
		if t.Hosts.Reserves(host) {
			return api.NotAllowed("host %q is reserved: it is a name of the server, or cara-server runs with a --reserve-host that covers it; choose another host", host)
		}
	}
	if err := offered(t, p); err != nil {
		return err
	}
	secrets := api.SecretNames(p.GetSpec())
	if len(secrets) == 0 {
		return nil
	}
	users := SourceSecrets(t.Seen)
	for _, secret := range secrets {
		if source, used := users[secret]; used {
			return api.NotAllowed("source %q uses Secret %q for git, webhooks or decryption, so no project may use it; put what project %q needs into a Secret of its own",
				source, secret, p.GetMetadata().GetName())
		}
	}
	return nil
}

// offered returns an error for capabilities that no node allows, whether the node is Ready or not. The scheduler finds the
// node that allows all of them.
func offered(t *state.Tx, p *carav1.Project) error {
	if len(api.ExtraCapabilities(p.GetSpec())) == 0 {
		return nil
	}
	var more []string
	for _, n := range state.List[*carav1.Node](t.Seen, "") {
		more = append(more, n.GetStatus().GetInfo().GetAllowedCapabilities()...)
	}
	if bad := validate.Capabilities(p, more); len(bad) > 0 {
		return api.Invalid(Describe(p), bad)
	}
	return nil
}

// SourceSecrets maps each Secret that a source uses for git, webhooks or decryption to one such source. A source that is created at the
// same moment as a project can be missing here. The assignment then leaves out the values.
func SourceSecrets(r state.Reader) map[string]string {
	users := map[string]string{}
	for _, src := range state.List[*carav1.Source](r, "") {
		for _, secret := range api.SourceSecretNames(src.GetSpec()) {
			users[secret] = src.GetMetadata().GetName()
		}
	}
	return users
}

// sourceMay returns an error for a project that the source's spec.allow does not cover. The source is a condition of the
// commit, so a concurrent change of spec.allow takes effect.
func sourceMay(t *state.Tx, source string, p *carav1.Project) error {
	src, ok := state.Read[*carav1.Source](t, source)
	if !ok {
		return api.Conflict("source %q does not exist any more", source)
	}
	denials := api.SourceDenials(source, withOwnSecrets(t, source, src.GetSpec().GetAllow(), p), p, t.Hosts.Of(p.GetSpec()), t.Hosts.Template)
	if len(denials) == 0 {
		return nil
	}
	return api.NotAllowed("%s", strings.Join(denials[:min(len(denials), maxDenials)], "; "))
}

// withOwnSecrets adds the Secrets that the source itself declares to those that its projects may use.
func withOwnSecrets(t *state.Tx, source string, allow *carav1.SourceAllow, p *carav1.Project) *carav1.SourceAllow {
	var own []string
	for _, name := range api.SecretNames(p.GetSpec()) {
		if secret, ok := state.Get[*carav1.Secret](t.Seen, name); ok && secret.GetMetadata().GetOwner() == api.PrefixSource+source {
			own = append(own, name)
		}
	}
	if len(own) == 0 {
		return allow
	}
	allow = cmp.Or(proto.CloneOf(allow), &carav1.SourceAllow{})
	allow.Secrets = append(allow.Secrets, own...)
	return allow
}

// DeclaredBySource applies all rules to a project that a source declares.
func DeclaredBySource(t *state.Tx, source string, p *carav1.Project) error {
	return cmp.Or(permitted(t, p), sourceMay(t, source, p)) // in this order, because adding it to spec.allow would not help
}

// MayDeclare applies all rules to a project that a person declares.
func MayDeclare(t *state.Tx, p *carav1.Project) error {
	spec := p.GetSpec()
	return cmp.Or(t.Actor.MayUse(p), t.Actor.MayClaim(t.Hosts.Of(spec), t.Hosts.Template), t.Actor.MayClaimPorts(api.PortKeys(spec)), permitted(t, p))
}

// MayRunAgain applies the rules to a stopped project that a person wants to run unchanged. The rules for its source apply,
// unless a person has overridden the spec.
func MayRunAgain(t *state.Tx, p *carav1.Project) error {
	source := SourceOf(p)
	o, _ := state.Read[*carav1.Override](t, p.GetMetadata().GetName())
	if source == "" || o.GetScope() == api.OverrideSpec && plan.InForce(o, t.Now) {
		return MayDeclare(t, p)
	}
	return DeclaredBySource(t, source, p)
}

// UnusedByProjects returns an error if a source begins to use a Secret for git, webhooks or decryption that a project uses.
func UnusedByProjects(t *state.Tx, old, in *carav1.Source) error {
	had := api.SourceSecretNames(old.GetSpec())
	fresh := slices.DeleteFunc(api.SourceSecretNames(in.GetSpec()), func(name string) bool { return slices.Contains(had, name) })
	if len(fresh) == 0 {
		return nil
	}
	for _, p := range state.List[*carav1.Project](t.Seen, "") {
		for _, secret := range api.SecretNames(p.GetSpec()) {
			if slices.Contains(fresh, secret) {
				return api.BadState("project %q uses Secret %q, so source %q cannot use it for git, webhooks or decryption; give the source a Secret of its own",
					p.GetMetadata().GetName(), secret, in.GetMetadata().GetName())
			}
		}
	}
	return nil
}
