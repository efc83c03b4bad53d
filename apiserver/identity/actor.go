package identity

import (
	"context"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Actor is who calls.
type Actor struct {
	// Name is `user/NAME`, `node/NAME` or `system/NAME`; empty for nobody.
	Name string
	// Role says what the actor may do; see methods.go for the table.
	Role api.Role
	// NamePrefix bounds what the actor may change to objects whose names begin with it.
	NamePrefix string
	// Hosts are patterns of the hosts that the actor's projects may claim. Where empty: the hosts that begin with
	// NamePrefix, or every host without a NamePrefix.
	Hosts []string
	// Token is the name of the token, or of the record of the certificate, that let the actor in. When it is deleted or
	// changed, the actor's open calls end.
	Token string
	// Expires is when the token expires; zero for never.
	Expires time.Time
}

// Authenticator says who calls over the network, from the credentials in ctx: the metadata key `authorization` and the
// peer's TLS state, which are there for REST just as for gRPC. No credentials at all is RoleNone and no error; wrong
// ones are an error with code UNAUTHENTICATED. It never gives out a role of the loops.
type Authenticator interface {
	Authenticate(ctx context.Context) (Actor, error)
}

// Person says whether a human or a pipeline calls.
func (a Actor) Person() bool { return strings.HasPrefix(a.Name, api.PrefixUser) }

// Node is the name of the node that calls, or empty.
func (a Actor) Node() string {
	if a.Role != api.RoleNode {
		return ""
	}
	return strings.TrimPrefix(a.Name, api.PrefixNode)
}

// System says whether a loop in this process calls.
func (a Actor) System() bool {
	switch a.Role {
	case api.RoleScheduler, api.RoleGC, api.RoleReconciler, api.RoleSources:
		return true
	default:
		return false
	}
}

// MayName says whether the actor's name prefix allows to change an object of this name.
func (a Actor) MayName(name string) bool { return strings.HasPrefix(name, a.NamePrefix) }

// MayUse bounds who has a name prefix to secrets that bear it too. Without this bound a pipeline that may change its
// previews could print the secrets of everything else from a container of its own.
func (a Actor) MayUse(p *carav1.Project) error {
	for _, secret := range api.SecretNames(p.GetSpec()) {
		if !a.MayName(secret) {
			return api.Forbidden("%s may only use secrets whose names begin with %q, and project %q names secret %q: copy what it needs into a secret of such a name",
				a.Name, a.NamePrefix, p.GetMetadata().GetName(), secret)
		}
	}
	return nil
}

// MayClaim bounds the hosts of what the actor declares. hosts are spelled out.
func (a Actor) MayClaim(hosts []string, t api.HostTemplate) error {
	patterns := a.Hosts
	if len(patterns) == 0 {
		patterns = []string{a.NamePrefix + api.Everything}
	}
	for _, host := range hosts {
		if !t.MatchHost(patterns, host) {
			return api.Forbidden("%s may not claim host %q: its token is for the hosts %s; use such a host, or ask an administrator for a token with --host %s",
				a.Name, host, strings.Join(patterns, ", "), host)
		}
	}
	return nil
}

type actorKey struct{}

// WithActor returns a context that ActorOf finds the actor in.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf is who calls; the interceptors have put it there before any service runs.
func ActorOf(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	return a
}
