package objects

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Secrets of a source: they are stored before the snapshot that declares them takes effect, so that its projects find them. The
// source owns them, and nobody else may write them. A Secret that the source no longer declares is deleted when no project uses it.

// errSecretOwner says where a Secret is changed.
func errSecretOwner(secret *carav1.Secret) error {
	meta := secret.GetMetadata()
	if meta.GetOwner() == "" {
		return api.Owned("Secret %q exists and was not declared by a source; delete it, or give the one in git another name", meta.GetName())
	}
	return api.Owned("Secret %q belongs to %s, %s: change it in git", meta.GetName(), meta.GetOwner(), meta.GetOrigin().GetFile())
}

// declareSecrets stores the Secrets of a snapshot, each in a transaction of its own. One that is refused becomes an error of its
// file, so that nothing is pruned.
func (s publisher) declareSecrets(ctx context.Context, in *published) error {
	for _, d := range in.secrets {
		err := s.db.Transact(ctx, func(t *state.Tx) error { return declareForSource(t, in, d) })
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil || !refusesSecret(err):
			return err
		}
		in.head.Complete = false
		in.head.ErrorCount++
		if len(in.head.FileErrors) < maxFileErrors {
			in.head.FileErrors = append(in.head.FileErrors, &carav1.FileProblem{
				File: d.GetFile(), Line: d.GetLine(), Column: 1, Message: api.ProblemOf(api.Wire(err)).GetDetail(),
			})
		}
	}
	return nil
}

// refusesSecret reports whether an error is about the Secret, and not about the snapshot or the server.
func refusesSecret(err error) bool {
	code := api.Code(err)
	return code == codes.InvalidArgument || code == codes.FailedPrecondition || code == codes.PermissionDenied
}

// maxFileErrors is how many errors a snapshot keeps.
const maxFileErrors = 100

func declareForSource(t *state.Tx, in *published, d *carav1.DeclaredSecret) error {
	src, ok := state.Read[*carav1.Source](t, in.source)
	if !ok {
		return rules.NotFound(api.KindSource, in.source)
	}
	if err := rules.MustBe(src, in.uid, ""); err != nil {
		return err
	}
	secret := d.GetSecret()
	name := secret.GetMetadata().GetName()
	if err := validateObject(secret); err != nil {
		return err
	}
	if names := src.GetSpec().GetAllow().GetNames(); len(names) > 0 && !api.MatchAny(names, name) {
		return api.NotAllowed("source %q may not declare Secret %q: add the name to spec.allow.names of the source", in.source, name)
	}
	if user, used := rules.SourceSecrets(t.Seen)[name]; used {
		return api.NotAllowed("source %q uses Secret %q itself, so no source can declare it; give the one in git another name", user, name)
	}
	_, _, err := writeSecret(t, secret, api.PrefixSource+in.source, &carav1.Origin{
		File: d.GetFile(), Line: d.GetLine(), Revision: in.head.GetRevision(),
	})
	return err
}

// dropAtOnce is how many Secrets go in the transaction of a snapshot's head, which must fit into the limits of the store. It is
// enough for a usual push, so that its Secrets are gone when it is in force.
const dropAtOnce = 4

// dropsSecrets reports whether a snapshot has all Secrets that its source declares.
func (in *published) dropsSecrets() bool { return in.secretsRead && in.head.GetComplete() }

// undeclared returns the names of the Secrets that the source owns and no longer declares.
func (in *published) undeclared(r state.Reader) []string {
	return slices.DeleteFunc(secretsOf(r, in.source), func(name string) bool {
		return slices.ContainsFunc(in.secrets, func(d *carav1.DeclaredSecret) bool { return d.GetSecret().GetMetadata().GetName() == name })
	})
}

// dropUndeclared deletes a Secret that left the source, or marks it if a project uses it.
func dropUndeclared(t *state.Tx, in *published, name string) {
	src, ok := state.Read[*carav1.Source](t, in.source)
	if !ok || src.GetSpec().Prune != nil && !src.GetSpec().GetPrune() {
		return
	}
	rules.DropSecret(t, name, "its manifest left "+api.PrefixSource+in.source, "")
}

// dropSecrets deletes the other Secrets that left the source, each in a transaction of its own.
func (s publisher) dropSecrets(ctx context.Context, in *published) error {
	for _, name := range in.undeclared(s.db.Cache) {
		if err := s.db.Transact(ctx, func(t *state.Tx) error { dropUndeclared(t, in, name); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// secretsOf returns the names of the Secrets that a source owns.
func secretsOf(r state.Reader, source string) (names []string) {
	all, _ := state.List[*carav1.Secret](r, "", "")
	for _, secret := range all {
		if secret.GetMetadata().GetOwner() == api.PrefixSource+source {
			names = append(names, secret.GetMetadata().GetName())
		}
	}
	return names
}

// releaseSecrets ends the ownership of a source that is removed, as for its projects: they stay, or they go.
func releaseSecrets(t *state.Tx, src *carav1.Source, names []string) {
	for _, name := range names {
		if src.GetSpec().GetOnDelete() == api.OnDeleteDelete {
			rules.DropSecret(t, name, "its source was deleted", "")
		}
		secret, ok := state.Read[*carav1.Secret](t, name)
		if !ok {
			continue
		}
		secret = proto.CloneOf(secret)
		secret.Metadata.Owner, secret.Metadata.Origin, secret.Metadata.DeletionTimestamp = "", nil, nil
		t.Put(secret)
		rules.RecordEvent(t, rules.RefTo(secret), api.EventNormal, api.ReasonOrphaned, "its source was deleted; it stays")
	}
}
