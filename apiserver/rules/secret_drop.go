package rules

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// DropSecret deletes a Secret of a source if no project uses it, except for one that is being removed. Otherwise it marks it, and
// dropUnused deletes it later.
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

// dropUnused deletes the marked Secrets of a project that is being removed.
func dropUnused(t *state.Tx, p *carav1.Project) {
	for _, name := range api.SecretNames(p.GetSpec()) {
		if secret, ok := state.Read[*carav1.Secret](t, name); ok && secret.GetMetadata().GetDeletionTimestamp() != nil {
			DropSecret(t, name, fmt.Sprintf("no project uses it since project %q is gone", p.GetMetadata().GetName()), p.GetMetadata().GetName())
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
