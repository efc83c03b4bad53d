package rules

import (
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// SecretValue opens one value of a stored secret. The error names the secret and never contains a value.
func SecretValue(vault *identity.Vault, stored *carav1.Secret, key string) ([]byte, error) {
	name := stored.GetMetadata().GetName()
	sealed, ok := stored.GetData()[key]
	switch {
	case vault == nil:
		return nil, ErrNoIdentity()
	case !ok:
		return nil, api.NotFound("secret %q has no key %q", name, key)
	}
	value, err := vault.Open(SealName(name, key), sealed)
	if err != nil {
		return nil, api.Errorf(codes.DataLoss, api.TitleInternal, "secret %v: set the secret again", err)
	}
	return value, nil
}

// SealName returns the name with which a value of a Secret is sealed.
func SealName(secret, key string) string { return secret + "/" + key }

// ErrNoIdentity is the error of a server without an identity.
func ErrNoIdentity() error {
	return api.Errorf(codes.FailedPrecondition, api.TitleUnavailable, "this server was started without an identity: it keeps no secrets and lets no node join")
}
