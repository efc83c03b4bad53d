package objects

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// CreateToken creates a token. Only this answer contains the secret.
func (s Tokens) CreateToken(ctx context.Context, req *carav1.CreateTokenRequest) (*carav1.CreateTokenResponse, error) {
	in := req.GetToken()
	name := in.GetMetadata().GetName()
	if name == "" {
		name = identity.NewTokenID()
	}
	if err := checkToken(in, name, s.DB.Now()); err != nil {
		return nil, err
	}
	if in.GetRole() == api.RoleJoin {
		if s.Identity == nil {
			return nil, rules.ErrNoIdentity()
		}
		in = WithJoinLimits(in, s.DB.Now())
	}
	secret := identity.NewSecret()
	var out *carav1.Token
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		if _, exists := state.Read[*carav1.Token](t, name); exists {
			return api.AlreadyExists("token %q already exists: revoke it first, or choose another name", name)
		}
		out = putToken(t, name, secret, in)
		return nil
	})
	if err != nil {
		return nil, err
	}
	text := identity.FormatToken(name, secret)
	if in.GetRole() == api.RoleJoin {
		text = api.JoinToken{CAHash: s.Identity.CAHash(), ID: name, Secret: secret}.String()
	}
	return &carav1.CreateTokenResponse{Token: hashless(out), Secret: text}, answerCreated(ctx)
}

// putToken writes a token with the terms of in.
func putToken(t *state.Tx, name, secret string, in *carav1.Token) *carav1.Token {
	token := &carav1.Token{
		Metadata:   &carav1.ObjectMeta{Name: name, Uid: state.NewUID(), CreationTimestamp: timestamppb.New(t.Now)},
		Role:       in.GetRole(),
		NamePrefix: in.GetNamePrefix(),
		ExpireAt:   in.GetExpireAt(),
		UsesLeft:   in.GetUsesLeft(),
		SecretHash: identity.HashSecret(secret),
		Hosts:      in.GetHosts(),
		NodeNames:  in.GetNodeNames(),
		Labels:     in.GetLabels(),
	}
	t.Put(token)
	return token
}

func checkToken(in *carav1.Token, name string, now time.Time) error {
	var fields []*carav1.FieldError
	// No dot: names with dots are for the nodes' certificates.
	if bad := validation.IsDNS1123Label(name); len(bad) > 0 {
		fields = append(fields, api.Field("metadata.name", "is %q; %s", name, bad[0])...)
	}
	if _, ok := TokenRole(in.GetRole()); !ok && in.GetRole() != api.RoleJoin {
		fields = append(fields, api.Field("role", "is %q; it must be admin, deployer, viewer or join", in.GetRole())...)
	}
	if at := in.GetExpireAt(); at != nil && !at.AsTime().After(now) {
		fields = append(fields, api.Field("expireAt", "is %s, which is in the past", at.AsTime().UTC().Format(time.RFC3339))...)
	}
	if in.GetUsesLeft() < 0 || in.GetUsesLeft() > 0 && in.GetRole() != api.RoleJoin {
		fields = append(fields, api.Field("usesLeft", "is %d; only join tokens have it, and it is at least 1 (10 by default)", in.GetUsesLeft())...)
	}
	if prefix := in.GetNamePrefix(); prefix != "" && (in.GetRole() != api.RoleDeployer || len(prefix) > 63) {
		fields = append(fields, api.Field("namePrefix", "is for deployers, and at most 63 characters long")...)
	}
	fields = append(fields, tokenPatterns(in)...)
	if len(fields) > 0 {
		return api.Invalid("the token", fields)
	}
	return nil
}

// TokenRole returns the role that a token gives a person or a pipeline; false for another kind of token.
func TokenRole(role string) (api.Role, bool) {
	switch role {
	case api.RoleAdmin, api.RoleDeployer, api.RoleViewer:
		return api.Role(role), true
	}
	return "", false
}

// tokenPatterns validates the patterns that limit a token.
func tokenPatterns(in *carav1.Token) []*carav1.FieldError {
	fields := validate.Token(in)
	if len(in.GetHosts()) > 0 && in.GetRole() != api.RoleDeployer {
		fields = append(fields, api.Field("hosts", "are for deployers; the role is %q", in.GetRole())...)
	}
	if in.GetRole() != api.RoleJoin && len(in.GetNodeNames())+len(in.GetLabels()) > 0 {
		fields = append(fields, api.Field("nodeNames", "and labels are for join tokens; the role is %q", in.GetRole())...)
	}
	return fields
}

// hashless returns a token without its hash, as clients see it.
func hashless(token *carav1.Token) *carav1.Token {
	return &carav1.Token{
		Metadata: token.GetMetadata(), Role: token.GetRole(), NamePrefix: token.GetNamePrefix(),
		ExpireAt: JoinEnd(token), UsesLeft: token.GetUsesLeft(),
		Hosts: token.GetHosts(), NodeNames: token.GetNodeNames(), Labels: token.GetLabels(),
	}
}

// ListTokens returns the tokens without their secrets, including those of the nodes' certificates.
func (s Tokens) ListTokens(_ context.Context, req *carav1.ListRequest) (*carav1.ListTokensResponse, error) {
	items, meta, err := listed(s.DB.Cache, req, hashless)
	return &carav1.ListTokensResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindToken), Items: items, Metadata: meta}, err
}

// DeleteToken revokes a token, effective from the next call. The last administrator token cannot be deleted.
func (s Tokens) DeleteToken(ctx context.Context, req *carav1.DeleteRequest) (*emptypb.Empty, error) {
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		token, err := rules.Named[*carav1.Token](t, req.GetName(), req.GetUid(), "")
		if err != nil {
			return err
		}
		if token.GetRole() == api.RoleAdmin && token.GetExpireAt() == nil && !otherAdmin(t, req.GetName()) {
			return api.BadState("token %q is the last of an administrator that does not expire: create another one first", req.GetName())
		}
		t.Remove(api.KindToken, req.GetName())
		return nil
	})
	return &emptypb.Empty{}, err
}

// otherAdmin reports whether another administrator token exists. It reads that token in the transaction, so that two
// administrators who revoke each other's tokens do not both succeed.
func otherAdmin(t *state.Tx, name string) bool {
	for _, token := range state.List[*carav1.Token](t.Seen, "") {
		other := token.GetMetadata().GetName()
		if other == name || token.GetRole() != api.RoleAdmin || token.GetExpireAt() != nil {
			continue
		}
		if _, ok := state.Read[*carav1.Token](t, other); ok {
			return true
		}
	}
	return false
}

// Default limits of a join token.
const (
	joinTokenLife = 24 * time.Hour
	joinTokenUses = 10
)

// WithJoinLimits returns the terms of a join token with an expiry and a number of uses.
func WithJoinLimits(in *carav1.Token, now time.Time) *carav1.Token {
	out := proto.CloneOf(in)
	if out.GetExpireAt() == nil {
		out.ExpireAt = timestamppb.New(now.Add(joinTokenLife))
	}
	if out.GetUsesLeft() == 0 {
		out.UsesLeft = joinTokenUses
	}
	return out
}

// JoinEnd returns when a token expires; nil means never. A join token of an older version of Cara has no expiry of its own.
func JoinEnd(token *carav1.Token) *timestamppb.Timestamp {
	born := token.GetMetadata().GetCreationTimestamp()
	if token.GetExpireAt() != nil || token.GetRole() != api.RoleJoin || born == nil {
		return token.GetExpireAt()
	}
	return timestamppb.New(born.AsTime().Add(joinTokenLife))
}
