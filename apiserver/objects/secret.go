package objects

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A secret is stored with sealed values, in data. Its values leave this process in only two ways: to the node of a project
// that uses them, and to `sources` for the source that uses them.

// CreateSecret creates a secret.
func (s Secrets) CreateSecret(ctx context.Context, req *carav1.CreateSecretRequest) (*carav1.Secret, error) {
	return create(ctx, s.DB, req.GetSecret(), declareSecret, keysOnly)
}

// PutSecret creates or replaces a secret with all its values.
func (s Secrets) PutSecret(ctx context.Context, req *carav1.PutSecretRequest) (*carav1.Secret, error) {
	return put(ctx, s.DB, req.GetSecret(), declareSecret, keysOnly)
}

// GetSecret returns a secret's keys.
func (s Secrets) GetSecret(_ context.Context, req *carav1.GetRequest) (*carav1.Secret, error) {
	return shown(s.DB.Cache, req.GetName(), keysOnly)
}

// ListSecrets returns secrets sorted by name, with their keys and without values.
func (s Secrets) ListSecrets(_ context.Context, req *carav1.ListRequest) (*carav1.ListSecretsResponse, error) {
	items, meta, err := listed(s.DB.Cache, req, keysOnly)
	return &carav1.ListSecretsResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindSecret), Items: items, Metadata: meta}, err
}

// DeleteSecret removes a secret. Running containers that use it keep running. A container that starts without it reports
// the missing value.
func (s Secrets) DeleteSecret(ctx context.Context, req *carav1.DeleteRequest) (*emptypb.Empty, error) {
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		secret, err := rules.Named[*carav1.Secret](t, req.GetName(), req.GetUid(), "")
		if err != nil {
			return err
		}
		if secret.GetMetadata().GetOwner() != "" {
			return errSecretOwner(secret)
		}
		rules.RecordEvent(t, rules.RefTo(secret), api.EventNormal, api.ReasonDeleted, "deleted by "+t.Actor.Name)
		t.Remove(api.KindSecret, req.GetName())
		return nil
	})
	return &emptypb.Empty{}, err
}

// declareSecret creates or changes a secret for a person. Both results are as stored: sealed.
func declareSecret(t *state.Tx, in *carav1.Secret) (before, after *carav1.Secret, err error) {
	return writeSecret(t, in, "", nil)
}

// writeSecret creates or changes a secret for its owner: a source, or "" for people. Only its owner may write it.
func writeSecret(t *state.Tx, in *carav1.Secret, owner string, origin *carav1.Origin) (before, after *carav1.Secret, err error) {
	if t.Vault == nil {
		return nil, nil, rules.ErrNoIdentity()
	}
	meta := in.GetMetadata()
	old, exists := state.Read[*carav1.Secret](t, meta.GetName())
	if exists && old.GetMetadata().GetOwner() != owner {
		return nil, nil, errSecretOwner(old)
	}
	values := plainValues(in)
	if exists && old.GetMetadata().GetDeletionTimestamp() == nil && maps.Equal(old.GetMetadata().GetLabels(), meta.GetLabels()) &&
		maps.Equal(old.GetMetadata().GetAnnotations(), meta.GetAnnotations()) &&
		old.GetType() == in.GetType() && sameValues(t.Vault, old, values) {
		return old, old, nil
	}
	next := &carav1.Secret{ApiVersion: api.APIVersion, Kind: api.KindSecret, Type: in.GetType(), Data: make(map[string][]byte, len(values))}
	if exists {
		next.Metadata = proto.CloneOf(old.GetMetadata())
		next.Metadata.Generation++
	} else {
		next.Metadata = &carav1.ObjectMeta{Name: meta.GetName(), Uid: state.NewUID(), Generation: 1, CreationTimestamp: timestamppb.New(t.Now)}
	}
	next.Metadata.Owner, next.Metadata.Origin, next.Metadata.DeletionTimestamp = owner, origin, nil
	meta = proto.CloneOf(meta)
	next.Metadata.Labels, next.Metadata.Annotations = meta.GetLabels(), meta.GetAnnotations()
	for key, value := range values {
		next.Data[key] = t.Vault.Seal(rules.SealName(meta.GetName(), key), value)
	}
	reason, word := api.Reason(api.ReasonCreated), "created by "
	if exists {
		reason, word = api.ReasonChanged, "changed by "
	}
	rules.RecordEvent(t, rules.RefTo(next), api.EventNormal, reason, word+t.Actor.Name)
	t.Put(next)
	if !exists {
		return nil, next, nil
	}
	return old, next, nil
}

// plainValues returns the values as the caller sent them.
func plainValues(in *carav1.Secret) map[string][]byte {
	values := make(map[string][]byte, len(in.GetData())+len(in.GetStringData()))
	maps.Copy(values, in.GetData())
	for key, value := range in.GetStringData() {
		values[key] = []byte(value)
	}
	return values
}

// sameValues reports whether a stored secret has exactly these values. A value that cannot be opened counts as different,
// so the new value replaces it.
func sameValues(vault *identity.Vault, stored *carav1.Secret, values map[string][]byte) bool {
	if len(stored.GetData()) != len(values) {
		return false
	}
	for key, value := range values {
		have, err := rules.SecretValue(vault, stored, key)
		if err != nil || !bytes.Equal(have, value) {
			return false
		}
	}
	return true
}

// keysOnly returns a stored secret without values, as clients see it.
func keysOnly(stored *carav1.Secret) *carav1.Secret {
	return &carav1.Secret{
		ApiVersion: stored.GetApiVersion(), Kind: stored.GetKind(), Metadata: stored.GetMetadata(), Type: stored.GetType(),
		Keys: slices.Sorted(maps.Keys(stored.GetData())),
	}
}

// GetSourceSecret returns the values of the Secrets that a source uses for git and for decryption.
func (s Sources) GetSourceSecret(_ context.Context, req *carav1.GetSourceSecretRequest) (*carav1.GetSourceSecretResponse, error) {
	source, ok := state.Get[*carav1.Source](s.DB.Cache, req.GetName())
	if !ok {
		return nil, rules.NotFound(api.KindSource, req.GetName())
	}
	out, err := &carav1.GetSourceSecretResponse{}, error(nil)
	if out.Git, err = s.sourceValues(req.GetName(), "spec.git.secretRef", source.GetSpec().GetGit().GetSecretRef()); err != nil {
		return nil, err
	}
	out.Decryption, err = s.sourceValues(req.GetName(), "spec.decryption.secretRef", source.GetSpec().GetDecryption().GetSecretRef())
	return out, err
}

// sourceValues returns the values of the Secret that a field of a source names, or nil if it names none.
func (s Sources) sourceValues(source, field, ref string) (map[string][]byte, error) {
	if ref == "" {
		return nil, nil
	}
	secret, ok := state.Get[*carav1.Secret](s.DB.Cache, ref)
	if !ok {
		return nil, api.NotFound("source %q names secret %q in %s, which does not exist: create it", source, ref, field)
	}
	values := make(map[string][]byte, len(secret.GetData()))
	for key := range secret.GetData() {
		value, err := rules.SecretValue(s.DB.Vault, secret, key)
		if err != nil {
			return nil, err
		}
		values[key] = value
	}
	return values, nil
}

// applySecret applies a secret. The results are for the diff in the answer, so they have no values.
func applySecret(t *state.Tx, m proto.Message, _ rules.ApplyTerms) (before, after proto.Message, err error) {
	old, now, err := declareSecret(t, m.(*carav1.Secret))
	switch {
	case err != nil:
		return nil, nil, err
	case old == nil:
		return nil, keysOnly(now), nil
	case old == now:
		same := keysOnly(now)
		return same, same, nil
	}
	return keysOnly(old), keysOnly(now), nil
}
