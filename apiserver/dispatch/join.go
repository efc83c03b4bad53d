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
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// usedUp is what a join token's usesLeft becomes after its last use. 0 is a token of an older version: it has no limit
// of uses, and ends like all.
const usedUp = -1

// Join makes a node's certificate out of a join token. The certificates that the node had before are accepted no more.
func (d *Dispatcher) Join(ctx context.Context, req *carav1.JoinRequest) (*carav1.JoinResponse, error) {
	id := d.Identity
	if id == nil {
		return nil, objects.ErrNoIdentity()
	}
	name := req.GetNodeName()
	asked := &carav1.Node{
		ApiVersion: api.APIVersion, Kind: api.KindNode,
		Metadata: &carav1.ObjectMeta{Name: name, Labels: req.GetLabels()}, Spec: &carav1.NodeSpec{},
	}
	if fields := api.Validate(asked); len(fields) > 0 {
		return nil, api.Invalid(objects.Describe(asked), fields)
	}
	var certificate []byte
	err := d.DB.Transact(ctx, func(t *state.Tx) error {
		token, err := useJoinToken(t, req.GetTokenId(), req.GetSecret())
		if err != nil {
			return err
		}
		if err := joinsAs(token, name); err != nil {
			return err
		}
		t.Actor.Name = api.PrefixNode + name // who knows the token's secret speaks for the node from here on
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
	d.Sessions.end(name, api.TakenOver("node %q has joined again with another certificate: this agent stops", name))
	return &carav1.JoinResponse{Certificate: certificate, Ca: id.CAPEM(), ClusterId: id.ClusterID()}, nil
}

// heardOf says whether an agent answers for the node. After a restart of the server, when nothing has been heard of any
// node, the state that is stored counts: the scheduler corrects it within one lease.
func (d *Dispatcher) heardOf(n *carav1.Node) bool {
	if last := d.Objects.Live.Beats.Of(n.GetMetadata().GetName()); !last.IsZero() {
		return d.DB.Now().Sub(last) < NodeLease
	}
	return n.GetStatus().GetState() != api.NodeNotReady
}

// recordJoin writes the event of a join, before the node's certificates of before are dropped. A node that had one gets a
// Warning: whoever has the token now speaks for it, runs its projects and gets their Secrets.
func recordJoin(ctx context.Context, t *state.Tx, n *carav1.Node, token string) {
	node := n.GetMetadata().GetName()
	from := "joined with token " + token + " from " + callerAddress(ctx)
	if !hasCertificate(t, node) {
		objects.RecordEvent(t, objects.RefTo(n), api.EventNormal, api.ReasonJoined, from)
		return
	}
	objects.RecordEvent(t, objects.RefTo(n), api.EventWarning, api.ReasonRejoined, from+" though it had joined before: the certificate that it had is no longer accepted, "+
		"and the projects of the node and their Secrets go to the one that has joined now. If you did not do this: caractrl cordon "+node+
		", caractrl delete token "+token)
}

// hasCertificate reports whether a certificate of the node is accepted.
func hasCertificate(t *state.Tx, node string) bool {
	certificates, _ := state.List[*carav1.Token](t.Seen, identity.NodeTokenPrefix(node), "")
	return len(certificates) > 0
}

// callerAddress is the address that a call comes from, without its port.
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

// useJoinToken checks a join token, counts the use and returns the token. What is wrong with it is told only to a caller
// that knows its secret.
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

// acceptCertificate makes a node's new certificate one that is accepted, and the only one but keep.
func acceptCertificate(t *state.Tx, c identity.NodeCertificate, keep string) {
	removeTokens(t, identity.NodeTokenPrefix(c.Node), keep)
	t.Put(&carav1.Token{
		Metadata:   &carav1.ObjectMeta{Name: c.TokenName(), Uid: state.NewUID(), CreationTimestamp: timestamppb.New(t.Now)},
		Role:       api.RoleNode,
		ExpireAt:   timestamppb.New(c.NotAfter),
		SecretHash: c.Hash,
	})
}

// removeTokens takes the tokens away whose names begin with prefix, but keep.
func removeTokens(t *state.Tx, prefix, keep string) {
	tokens, _ := state.List[*carav1.Token](t.Seen, prefix, "")
	for _, token := range tokens {
		name := token.GetMetadata().GetName()
		if _, ok := state.Read[*carav1.Token](t, name); ok && name != keep {
			t.Remove(api.KindToken, name)
		}
	}
}

// RenewCertificate gives the calling node a certificate for a new key. The one that it calls with stays accepted until
// the next renewal, so that an answer that is lost locks nobody out.
func (d *Dispatcher) RenewCertificate(ctx context.Context, req *carav1.RenewCertificateRequest) (*carav1.JoinResponse, error) {
	id := d.Identity
	if id == nil {
		return nil, objects.ErrNoIdentity()
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

// ErrFenced is the error of a node whose certificate is no longer accepted.
func ErrFenced(node string) error {
	return api.Unauthenticated("this certificate of node %q is no longer accepted: the node has joined again or was deleted; join it with a join token", node)
}

// PeerTLS is the caller's TLS state; nil where it speaks plaintext.
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

// joinsAs refuses a node's name that the join token does not cover.
func joinsAs(token *carav1.Token, node string) error {
	patterns := token.GetNodeNames()
	if len(patterns) == 0 || api.MatchAny(patterns, node) {
		return nil
	}
	return api.Forbidden("join token %q is for nodes named %s, not %q; use such a --node-name, or make a token with --node-name %s",
		token.GetMetadata().GetName(), strings.Join(patterns, ", "), node, node)
}

// joinLabels returns the labels of a node that is new: those of its join token, which the node may choose within the
// token's patterns.
func joinLabels(token *carav1.Token, asked map[string]string) (map[string]string, error) {
	labels := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		value := asked[key]
		if pattern, ok := token.GetLabels()[key]; !ok || !api.MatchPattern(pattern, value) {
			return nil, api.Forbidden("join token %q does not allow the label %s=%s; make a token with --label %s=%s, or take the label away from cara-agent",
				token.GetMetadata().GetName(), key, value, key, value)
		}
		labels[key] = value
	}
	for key, pattern := range token.GetLabels() {
		if !strings.Contains(pattern, api.Everything) {
			labels[key] = pattern
		}
	}
	return labels, nil
}
