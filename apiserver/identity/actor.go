package identity

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Actor is an authenticated caller.
type Actor struct {
	// Name is `user/NAME`, `node/NAME` or `system/NAME`; empty for an unauthenticated caller.
	Name string
	// Role determines what the actor may do; see the table in methods.go.
	Role api.Role
	// NamePrefixes limit changes to objects whose names begin with one of them. Without any, the actor may change all.
	NamePrefixes []string
	// Hosts are patterns of the hosts that the actor's projects may claim. If empty, the actor may claim the hosts that
	// begin with one of NamePrefixes, or every host without NamePrefixes.
	Hosts []string
	// Token is the name of the token, or of the record of the certificate, that authenticated the actor. When it is deleted
	// or changed, the actor's open calls end.
	Token string
	// Session is the id of the page's session that authenticated the actor; empty for other callers. When the session is
	// deleted, the actor's open calls end.
	Session string
	// Expires is when the token or the session expires; zero means never.
	Expires time.Time
}

// Authenticator authenticates callers from the network. It uses the credentials in ctx: the metadata key `authorization`
// and the peer's TLS state, which REST requests have too. Without credentials it returns RoleNone and no error. Wrong
// credentials are an error with code UNAUTHENTICATED. It never returns a role of the loops.
type Authenticator interface {
	Authenticate(ctx context.Context) (Actor, error)
}

// Person reports whether the caller is a human or a pipeline.
func (a Actor) Person() bool { return strings.HasPrefix(a.Name, api.PrefixUser) }

// Node returns the name of the calling node, or "".
func (a Actor) Node() string {
	if a.Role != api.RoleNode {
		return ""
	}
	return strings.TrimPrefix(a.Name, api.PrefixNode)
}

// System reports whether the caller is a loop in this process.
func (a Actor) System() bool {
	switch a.Role {
	case api.RoleScheduler, api.RoleGC, api.RoleReconciler, api.RoleSources, api.RoleCerts:
		return true
	default:
		return false
	}
}

// MayName reports whether the actor's name prefixes allow a change to an object with this name.
func (a Actor) MayName(name string) bool {
	return len(a.NamePrefixes) == 0 || slices.ContainsFunc(a.NamePrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// CheckName returns an error if the actor's name prefixes do not allow a change to an object with this name.
func (a Actor) CheckName(name string) error {
	if a.MayName(name) {
		return nil
	}
	return api.Forbidden("%s may only change what begins with %s, and %q does not", a.Name, a.prefixes(), name)
}

// prefixes returns the name prefixes for a message.
func (a Actor) prefixes() string {
	quoted := make([]string, len(a.NamePrefixes))
	for i, prefix := range a.NamePrefixes {
		quoted[i] = strconv.Quote(prefix)
	}
	return strings.Join(quoted, " or ")
}

// MayUse returns an error if the actor has name prefixes and the project uses a secret without one of them. Without this
// rule a pipeline that may only change its previews could print any secret from a container.
func (a Actor) MayUse(p *carav1.Project) error {
	for _, secret := range api.SecretNames(p.GetSpec()) {
		if !a.MayName(secret) {
			return api.Forbidden("%s may only use secrets whose names begin with %s, and project %q names secret %q: copy what it needs into a secret of such a name",
				a.Name, a.prefixes(), p.GetMetadata().GetName(), secret)
		}
	}
	return nil
}

// MayClaim returns an error if the actor may not declare one of the hosts. hosts are full names.
func (a Actor) MayClaim(hosts []string, t api.HostTemplate) error {
	patterns := a.Hosts
	if len(patterns) == 0 {
		for _, prefix := range a.NamePrefixes {
			patterns = append(patterns, prefix+syntax.Everything)
		}
	}
	if len(patterns) == 0 {
		patterns = []string{syntax.Everything}
	}
	for _, host := range hosts {
		if !t.MatchHost(patterns, host) {
			return api.Forbidden("%s may not claim host %q: its token is for the hosts %s; use such a host, or ask an administrator for a token with --host %s",
				a.Name, host, strings.Join(patterns, ", "), host)
		}
	}
	return nil
}

// MayClaimPorts returns an error if the caller's token is limited to some names or hosts and one of the ports is public. Such a
// token cannot make a service reachable for everybody.
func (a Actor) MayClaimPorts(ports []api.PortKey) error {
	if len(a.Hosts) == 0 && len(a.NamePrefixes) == 0 {
		return nil
	}
	for _, k := range ports {
		if k.Scope == api.ScopePublic {
			return api.Forbidden("%s may not claim %s: its token is limited to some names or hosts; set the scope %s, or let an administrator apply the project",
				a.Name, k, api.ScopeInternal)
		}
	}
	return nil
}

type actorKey struct{}

// WithActor returns a context that carries the actor for ActorOf.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf returns the caller. The interceptors set it before any service runs.
func ActorOf(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	return a
}
