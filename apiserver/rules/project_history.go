package rules

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// HistoryLength is how many specs are kept for a project.
const HistoryLength = 10

// shortestCommit is the minimum length of a commit prefix.
const shortestCommit = 7

// revisionKey is the store key of one spec of a project. Revisions are rarely read, so they are not in the cache.
// Generations are padded to ten digits, so that keys sort by them.
func revisionKey(project string, generation int32) string {
	return fmt.Sprintf("revisions/%s/%010d", project, generation)
}

// KeepRevision stores the project's current spec and drops the oldest. It is in the same transaction as the new generation.
func KeepRevision(t *state.Tx, p *carav1.Project, reason string) {
	meta := p.GetMetadata()
	generation := meta.GetGeneration()
	actor := t.Actor.Name
	if !t.Actor.Person() && meta.GetOwner() != "" {
		actor = meta.GetOwner()
	}
	r := &carav1.Revision{
		Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("%s/%d", meta.GetName(), generation), CreationTimestamp: timestamppb.New(t.Now)},
		Project: &carav1.Project{
			ApiVersion: api.APIVersion, Kind: api.KindProject,
			Metadata: &carav1.ObjectMeta{Name: meta.GetName(), Labels: meta.GetLabels(), Annotations: meta.GetAnnotations()},
			Spec:     p.GetSpec(),
		},
		Generation: generation, SpecHash: p.GetStatus().GetSpecHash(), Actor: actor, Time: timestamppb.New(t.Now), Reason: reason,
	}
	if strings.HasPrefix(actor, api.PrefixSource) {
		r.Origin = meta.GetOrigin()
	}
	t.Write(revisionKey(meta.GetName(), generation), r)
	if old := generation - HistoryLength; old > 0 {
		t.Write(revisionKey(meta.GetName(), old), nil)
	}
}

// dropRevisions drops the history of a deleted project, so that a new project with the same name does not get it.
func dropRevisions(t *state.Tx, p *carav1.Project) {
	newest := p.GetMetadata().GetGeneration()
	for g := max(1, newest-HistoryLength+1); g <= newest; g++ {
		t.Write(revisionKey(p.GetMetadata().GetName(), g), nil)
	}
}

// Rollback gives the project with this uid an earlier spec.
func Rollback(t *state.Tx, uid string, to *carav1.Revision, terms *carav1.OverrideTerms) (*carav1.Project, error) {
	name := to.GetProject().GetMetadata().GetName()
	if _, err := Named[*carav1.Project](t, name, uid, ""); err != nil {
		return nil, err
	}
	what := "rolled back to " + revisionText(to)
	if at := to.GetProject().GetSpec().GetExpireAt(); at != nil && !at.AsTime().After(t.Now) {
		return nil, api.Expired("project %q cannot be %s: it would expire at once, that spec ended at %s; apply it with a later expireAt",
			name, what, utc(at))
	}
	reason := what
	if why := terms.GetReason(); why != "" {
		reason += ": " + why
	}
	_, after, err := redeclareBy(t, proto.CloneOf(to.GetProject()), terms, what+" by "+t.Actor.Name, reason)
	return after, err
}

// PickRevision finds a revision by its generation, or the newest revision of a commit.
func PickRevision(project, to string, items []*carav1.Revision) (*carav1.Revision, error) {
	for _, r := range items {
		if strconv.Itoa(int(r.GetGeneration())) == to {
			return r, nil
		}
	}
	for _, r := range items {
		if len(to) >= shortestCommit && strings.HasPrefix(r.GetOrigin().GetRevision(), to) {
			return r, nil
		}
	}
	have := make([]string, 0, len(items))
	for _, r := range items {
		have = append(have, revisionText(r))
	}
	return nil, api.NotFound("project %q has no revision %q: want a generation, or %d characters or more of a commit, of %s", project, to, shortestCommit, strings.Join(have, ", "))
}

// revisionText formats a revision for messages: its generation, and its commit if it has one.
func revisionText(r *carav1.Revision) string {
	name := strconv.Itoa(int(r.GetGeneration()))
	if rev := r.GetOrigin().GetRevision(); rev != "" {
		name += " (" + rev[:min(shortestCommit, len(rev))] + ")"
	}
	return name
}
