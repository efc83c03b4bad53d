package objects

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
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
	src, err := rules.Named[*carav1.Source](t, in.source, in.uid, "")
	if err != nil {
		return err
	}
	secret := d.GetSecret()
	name := secret.GetMetadata().GetName()
	if err := validateObject(secret); err != nil {
		return err
	}
	if names := src.GetSpec().GetAllow().GetNames(); len(names) > 0 && !syntax.MatchAny(names, name) {
		return api.NotAllowed("source %q may not declare Secret %q: add the name to spec.allow.names of the source", in.source, name)
	}
	if user, used := rules.SourceSecrets(t.Seen)[name]; used {
		return api.NotAllowed("source %q uses Secret %q itself, so no source can declare it; give the one in git another name", user, name)
	}
	_, _, err = writeSecret(t, secret, api.PrefixSource+in.source, &carav1.Origin{
		File: d.GetFile(), Line: d.GetLine(), Revision: in.head.GetRevision(),
	})
	return err
}

// undeclared returns the Secrets that the source owns and no longer declares. It returns none if the snapshot does not have all
// Secrets that the source declares.
func (in *published) undeclared(r state.Reader) []*carav1.Secret {
	if !in.secretsRead || !in.head.GetComplete() {
		return nil
	}
	return slices.DeleteFunc(secretsOf(r, in.source), func(s *carav1.Secret) bool {
		return slices.ContainsFunc(in.secrets, func(d *carav1.DeclaredSecret) bool {
			return d.GetSecret().GetMetadata().GetName() == s.GetMetadata().GetName()
		})
	})
}

// dropUndeclared deletes Secrets that left the source, or marks those that a project uses.
func dropUndeclared(t *state.Tx, in *published, gone []*carav1.Secret) {
	src, ok := state.Read[*carav1.Source](t, in.source)
	if !ok || src.GetSpec().Prune != nil && !src.GetSpec().GetPrune() {
		return
	}
	for _, s := range gone {
		rules.DropSecret(t, s.GetMetadata().GetName(), "its manifest left "+api.PrefixSource+in.source, "")
	}
}

// dropBeside drops the Secrets that fit into the transaction of the head and its claims. So those of a usual push are gone when it is
// in force. The others follow with dropSecrets.
func dropBeside(t *state.Tx, in *published, claims []*carav1.Claim) {
	room := partBytes
	for _, c := range claims {
		room -= proto.Size(c)
	}
	gone := in.undeclared(t.Seen)
	dropUndeclared(t, in, gone[:fitting(gone, partSecrets, room)])
}

// dropSecrets drops the Secrets that left the source and did not go with the head.
func (s publisher) dropSecrets(ctx context.Context, in *published) error {
	for part := range parts(in.undeclared(s.db.Cache), partSecrets) {
		if err := s.db.Transact(ctx, func(t *state.Tx) error { dropUndeclared(t, in, part); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// secretsOf returns the Secrets that a source owns.
func secretsOf(r state.Reader, source string) []*carav1.Secret {
	return slices.DeleteFunc(state.List[*carav1.Secret](r, ""), func(s *carav1.Secret) bool { return s.GetMetadata().GetOwner() != api.PrefixSource+source })
}

// releaseSecrets ends the ownership of a source that is removed, as for its projects: they stay, or they go.
func releaseSecrets(t *state.Tx, src *carav1.Source, secrets []*carav1.Secret) {
	for _, s := range secrets {
		name := s.GetMetadata().GetName()
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
