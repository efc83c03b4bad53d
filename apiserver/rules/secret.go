package rules

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
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

// DropSecret deletes a Secret of a source if no project uses it, except for one that is being removed or changed. Otherwise it marks
// it, and dropUnused deletes it later.
func DropSecret(t *state.Tx, name, why, except string) {
	secret, ok := state.Read[*carav1.Secret](t, name)
	if !ok || secret.GetMetadata().GetOwner() == "" {
		return
	}
	if secretIsUsed(t, name, except) {
		if secret.GetMetadata().GetDeletionTimestamp() == nil {
			secret = proto.CloneOf(secret)
			secret.Metadata.DeletionTimestamp = timestamppb.New(t.Now)
			t.Put(secret)
			RecordEvent(t, RefTo(secret), api.EventNormal, api.ReasonTerminating, why+"; it is deleted when no project uses it")
		}
		return
	}
	RecordEvent(t, RefTo(secret), api.EventNormal, api.ReasonDeleted, why)
	t.Remove(api.KindSecret, name)
}

// dropUnused deletes the marked Secrets that only a project used which does not use them any more. now is its spec, or nil if the
// project is removed; what says what happened to it.
func dropUnused(t *state.Tx, p *carav1.Project, now *carav1.ProjectSpec, what string) {
	uses := api.SecretNames(now)
	for _, name := range api.SecretNames(p.GetSpec()) {
		if seen, _ := state.Get[*carav1.Secret](t.Seen, name); seen.GetMetadata().GetOwner() == "" || slices.Contains(uses, name) {
			continue // no condition of the commit: it is never marked
		}
		if secret, ok := state.Read[*carav1.Secret](t, name); ok && secret.GetMetadata().GetDeletionTimestamp() != nil {
			DropSecret(t, name, fmt.Sprintf("no project uses it since project %q %s", p.GetMetadata().GetName(), what), p.GetMetadata().GetName())
		}
	}
}

// secretIsUsed reports whether a project other than except uses a Secret. That project becomes a condition of the transaction: if it is
// removed at the same time, one of both transactions runs again, and the last one deletes the Secret.
func secretIsUsed(t *state.Tx, name, except string) bool {
	for _, user := range t.Seen.ProjectsUsingSecret(name) {
		if user == except {
			continue
		}
		if _, there := state.Read[*carav1.Project](t, user); there {
			return true
		}
	}
	return false
}

// PasswordList returns the users of a Secret of type basicAuth. If it cannot be used, it returns what is wrong with the Secret and
// what to do, without any part of its value.
func PasswordList(r state.Reader, vault *identity.Vault, name string) (list *carav1.PasswordList, problem string) {
	const create = "caractrl create secret %s --type %s --from-file users=FILE"
	stored, ok := state.Get[*carav1.Secret](r, name)
	if !ok {
		return nil, fmt.Sprintf("does not exist; create it: "+create, name, api.SecretBasicAuth)
	}
	if stored.GetType() != api.SecretBasicAuth {
		return nil, fmt.Sprintf("has the type %s and must have the type %s; name another Secret, or delete this one and create it again: "+create,
			cmp.Or(stored.GetType(), api.SecretOpaque), api.SecretBasicAuth, name, api.SecretBasicAuth)
	}
	text, err := SecretValue(vault, stored, api.BasicAuthUsers)
	if err != nil {
		return nil, "cannot be opened; set it again"
	}
	users, err := api.ParseUsers(text)
	if err != nil { // an older server stored it without a check
		return nil, fmt.Sprintf("cannot be used for passwords: %v; then set the Secret again", err)
	}
	return &carav1.PasswordList{Id: name, Users: users}, ""
}
