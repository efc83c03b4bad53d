package dispatch

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// usedUp is the value of usesLeft after a join token's last use. 0 means a token of an older version, which has no limit of
// uses but expires like any other.
const usedUp = -1

// Join issues a node certificate for a join token. The node's earlier certificates are no longer accepted.
func (d *Dispatcher) Join(ctx context.Context, req *carav1.JoinRequest) (*carav1.JoinResponse, error) {
	id := d.Identity
	if id == nil {
		return nil, rules.ErrNoIdentity()
	}
	name := req.GetNodeName()
	asked := &carav1.Node{
		ApiVersion: api.APIVersion, Kind: api.KindNode,
		Metadata: &carav1.ObjectMeta{Name: name, Labels: req.GetLabels()}, Spec: &carav1.NodeSpec{},
	}
	if fields := validate.Object(asked); len(fields) > 0 {
		return nil, api.Invalid(rules.Describe(asked), fields)
	}
	if _, _, err := state.Find[*carav1.Token](ctx, d.DB, req.GetTokenId()); err != nil {
		return nil, err
	}
	if _, err := useJoinToken(d.DB.Begin(ctx), req.GetTokenId(), req.GetSecret()); err != nil {
		return nil, err // a caller without a token must not wait behind those that have one
	}
	if err := d.Joins.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer d.Joins.Release(1)
	var certificate []byte
	err := d.DB.Transact(ctx, func(t *state.Tx) error {
		token, err := useJoinToken(t, req.GetTokenId(), req.GetSecret())
		if err != nil {
			return err
		}
		if err := joinsAs(token, name); err != nil {
			return err
		}
		t.Actor.Name = api.PrefixNode + name // from here on the caller acts as the node, because it knows the token's secret
		n, exists := state.Read[*carav1.Node](t, name)
		if exists && d.heardOf(n) {
			return api.Errorf(codes.AlreadyExists, api.TitleConflict,
				"node %q is there and answered within the last %s: stop the agent that runs under this name and wait as long, or join with another --node-name",
				name, NodeLease)
		}
		if !exists {
			labels, err := joinLabels(token, asked.GetMetadata().GetLabels())
			if err != nil {
				return err
			}
			n = objects.NewNode(t, &carav1.ObjectMeta{Name: name, Labels: labels}, nil)
			t.Put(n)
		}
		text, made, err := id.SignNode(req.GetCsr(), name)
		if err != nil {
			return signError(err)
		}
		certificate = text
		recordJoin(ctx, t, n, req.GetTokenId())
		acceptCertificate(t, made, "")
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.Sessions.end(name, errJoinedAgain(name))
	return &carav1.JoinResponse{Certificate: certificate, Ca: id.CAPEM(), ClusterId: id.ClusterID()}, nil
}

// heardOf reports whether the node's agent is connected. After a restart the server has no heartbeats yet, so the stored
// state counts. The scheduler corrects it within one lease.
func (d *Dispatcher) heardOf(n *carav1.Node) bool {
	if last := d.Objects.Live.Beats.Of(n.GetMetadata().GetName()); !last.IsZero() {
		return d.DB.Now().Sub(last) < NodeLease
	}
	return n.GetStatus().GetState() != api.NodeNotReady
}

// recordJoin writes the event of a join before the node's earlier certificates are dropped. If the node had one, the event
// is a Warning: the caller now acts as the node, runs its projects and gets their Secrets.
func recordJoin(ctx context.Context, t *state.Tx, n *carav1.Node, token string) {
	node := n.GetMetadata().GetName()
	from := "joined with token " + token + " from " + callerAddress(ctx)
	if !hasCertificate(t, node) {
		rules.RecordEvent(t, rules.RefTo(n), api.EventNormal, api.ReasonJoined, from)
		return
	}
	rules.RecordEvent(t, rules.RefTo(n), api.EventWarning, api.ReasonRejoined, from+" though it had joined before: the certificate that it had is no longer accepted, "+
		"and the projects of the node and their Secrets go to the one that has joined now. If you did not do this: caractrl cordon "+node+
		", caractrl delete token "+token)
}

// hasCertificate reports whether a certificate of the node is accepted.
func hasCertificate(t *state.Tx, node string) bool {
	return len(state.List[*carav1.Token](t.Seen, identity.NodeTokenPrefix(node))) > 0
}

// callerAddress returns the address of the caller, without the port.
func callerAddress(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return "an unknown address"
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

// useJoinToken checks a join token, counts the use and returns the token. The error gives details only to a caller that
// knows the token's secret.
func useJoinToken(t *state.Tx, name, secret string) (*carav1.Token, error) {
	token, ok := state.Read[*carav1.Token](t, name)
	if !ok || token.GetRole() != api.RoleJoin || !identity.SecretMatches(token.GetSecretHash(), secret) {
		return nil, api.Unauthenticated("the join token is not valid here: it was revoked, or is of another cluster; make one with caractrl create token NAME --role join")
	}
	if at := objects.JoinEnd(token); at != nil && !at.AsTime().After(t.Now) {
		return nil, api.Unauthenticated("join token %q ended at %s; make another one with caractrl create token NAME --role join",
			name, at.AsTime().UTC().Format(time.RFC3339))
	}
	switch left := token.GetUsesLeft(); {
	case left < 0:
		return nil, api.Unauthenticated("join token %q has no uses left; make another one with caractrl create token NAME --role join", name)
	case left > 0:
		used := proto.CloneOf(token)
		if used.UsesLeft--; used.UsesLeft == 0 {
			used.UsesLeft = usedUp
		}
		t.Put(used)
	}
	return token, nil
}

// acceptCertificate records a node's new certificate as accepted and removes all others except keep.
func acceptCertificate(t *state.Tx, c identity.NodeCertificate, keep string) {
	removeTokens(t, identity.NodeTokenPrefix(c.Node), keep)
	t.Put(&carav1.Token{
		Metadata:   &carav1.ObjectMeta{Name: c.TokenName(), Uid: state.NewUID(), CreationTimestamp: timestamppb.New(t.Now)},
		Role:       api.RoleNode,
		ExpireAt:   timestamppb.New(c.NotAfter),
		SecretHash: c.Hash,
	})
}

// removeTokens removes the tokens whose names begin with prefix, except keep.
func removeTokens(t *state.Tx, prefix, keep string) {
	for _, token := range state.List[*carav1.Token](t.Seen, prefix) {
		name := token.GetMetadata().GetName()
		if _, ok := state.Read[*carav1.Token](t, name); ok && name != keep {
			t.Remove(api.KindToken, name)
		}
	}
}

// RenewCertificate issues a certificate with a new key to the calling node. The current certificate stays accepted until
// the next renewal, so a lost answer does not lock the node out.
func (d *Dispatcher) RenewCertificate(ctx context.Context, req *carav1.RenewCertificateRequest) (*carav1.JoinResponse, error) {
	id := d.Identity
	if id == nil {
		return nil, rules.ErrNoIdentity()
	}
	current, ok, err := id.PeerNode(PeerTLS(ctx))
	if err != nil || !ok {
		return nil, api.Unauthenticated("a certificate is renewed over a connection that was made with it")
	}
	text, made, err := id.SignNode(req.GetCsr(), current.Node)
	if err != nil {
		return nil, signError(err)
	}
	err = d.DB.Transact(ctx, func(t *state.Tx) error {
		if _, ok := state.Read[*carav1.Token](t, current.TokenName()); !ok {
			return ErrFenced(current.Node)
		}
		acceptCertificate(t, made, current.TokenName())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &carav1.JoinResponse{Certificate: text, Ca: id.CAPEM(), ClusterId: id.ClusterID()}, nil
}

func signError(err error) error {
	if errors.Is(err, identity.ErrRequest) {
		return api.Invalid("the request", api.Field("csr", "%v", err))
	}
	return err
}

// joinedAgain reports whether the certificate of a session is no longer accepted, and another one of its node is.
func joinedAgain(db *state.DB, me *Session) bool {
	seen := db.Cache.View()
	if _, ok := state.Get[*carav1.Token](seen, me.certificate); ok || me.certificate == "" {
		return false
	}
	return len(state.List[*carav1.Token](seen, identity.NodeTokenPrefix(me.Node))) > 0
}

// errJoinedAgain is the error for the agent of a node that has joined with another certificate.
func errJoinedAgain(node string) error {
	return api.TakenOver("node %q has joined again with another certificate: this agent stops", node)
}

// ErrFenced is the error for a node whose certificate is no longer accepted.
func ErrFenced(node string) error {
	return api.Unauthenticated("this certificate of node %q is no longer accepted: the node has joined again or was deleted; join it with a join token", node)
}

// PeerTLS returns the caller's TLS state, or nil for a plaintext connection.
func PeerTLS(ctx context.Context) *tls.ConnectionState {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	return &info.State
}

// joinsAs returns an error if the join token does not allow the node's name.
func joinsAs(token *carav1.Token, node string) error {
	patterns := token.GetNodeNames()
	if len(patterns) == 0 || syntax.MatchAny(patterns, node) {
		return nil
	}
	return api.Forbidden("join token %q is for nodes named %s, not %q; use such a --node-name, or make a token with --node-name %s",
		token.GetMetadata().GetName(), strings.Join(patterns, ", "), node, node)
}

// joinLabels returns the labels of a new node. The node may ask for labels that match the patterns of its join token.
func joinLabels(token *carav1.Token, asked map[string]string) (map[string]string, error) {
	labels := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		value := asked[key]
		if pattern, ok := token.GetLabels()[key]; !ok || !syntax.MatchPattern(pattern, value) {
			return nil, api.Forbidden("join token %q does not allow the label %s=%s; make a token with --label %s=%s, or take the label away from cara-agent",
				token.GetMetadata().GetName(), key, value, key, value)
		}
		labels[key] = value
	}
	for key, pattern := range token.GetLabels() {
		if !strings.Contains(pattern, syntax.Everything) {
			labels[key] = pattern
		}
	}
	return labels, nil
}
