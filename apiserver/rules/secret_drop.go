package rules

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
