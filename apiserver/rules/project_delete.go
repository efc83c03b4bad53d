package rules

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// DeleteProject is the transaction of Projects.DeleteProject. It returns the uid of the project.
func DeleteProject(t *state.Tx, req *carav1.DeleteProjectRequest) (string, error) {
	old, ok := state.Read[*carav1.Project](t, req.GetName())
	if !ok {
		return "", NotFound(api.KindProject, req.GetName())
	}
	if err := mayDelete(t, old, req); err != nil {
		return "", err
	}
	uid, st := old.GetMetadata().GetUid(), old.GetStatus()
	p := proto.CloneOf(old)
	if st.GetPhase() != api.PhaseTerminating && st.GetPhase() != api.PhaseTerminated {
		p.Metadata.DeletionTimestamp = timestamppb.New(t.Now)
		p.Status.DeletionReason = cmp.Or(req.GetReason(), api.ReasonDeleted)
		p.Status.DeletionActor = t.Actor.Name
		why := deletionText(p)
		if st.GetNodeRef() == "" {
			return uid, RemoveProject(t, p, api.RoleServer, why+"; it had no node")
		}
		if err := MovePhase(t, p, api.PhaseTerminating, api.RoleServer, api.ReasonTerminating, why); err != nil {
			return "", err
		}
		t.Put(p)
	}
	if !req.GetForce() {
		return uid, nil
	}
	return uid, forceRemoval(t, p)
}

// forceRemoval moves a project to its end without its agent. The agent removes what is left when it learns that the project
// is no longer assigned to it.
func forceRemoval(t *state.Tx, p *carav1.Project) error {
	why := "forced by " + t.Actor.Name + ": its node was not asked"
	if p.GetStatus().GetPhase() == api.PhaseTerminating {
		if err := MovePhase(t, p, api.PhaseTerminated, api.RoleScheduler, api.ReasonForced, why); err != nil {
			return err
		}
	}
	return RemoveProject(t, p, api.RoleGC, why)
}

// mayDelete checks the preconditions of a deletion, and whether a source still declares the project.
func mayDelete(t *state.Tx, p *carav1.Project, req *carav1.DeleteProjectRequest) error {
	owner, name := p.GetMetadata().GetOwner(), p.GetMetadata().GetName()
	if err := MustBe(p, req.GetUid(), ""); err != nil {
		return err
	}
	if want := req.GetOwner(); want != "" && want != owner {
		return api.Errorf(codes.Aborted, api.TitleOwned, "project %q belongs to %s, not to %s: it is not deleted", name, api.OrNobody(owner), want)
	}
	if !t.Actor.Person() {
		return stillDue(t, p, req.GetReason())
	}
	if reason := req.GetReason(); reason != "" && reason != api.ReasonDeleted {
		return api.Invalid("the request", api.Field("reason", "is %q; people delete with the reason Deleted", reason))
	}
	source := SourceOf(p)
	switch {
	case source == "":
		return nil
	case req.GetOverride() != nil:
		_, err := RecordOverride(t, name, source, api.OverrideDeletion, req.GetOverride())
		return err
	case p.GetMetadata().GetDeletionTimestamp() != nil:
		return nil // the deletion has already begun; force may still help
	default:
		return errSourceOwned(p)
	}
}

func deletionText(p *carav1.Project) string {
	words := map[string]string{
		api.ReasonPruned: "its manifest left the source", api.ReasonExpired: "it expired", api.ReasonSourceDeleted: "its source was deleted",
	}
	reason := p.GetStatus().GetDeletionReason()
	if text, ok := words[reason]; ok {
		if SourceOf(p) != "" {
			text += ": " + Whence(p.GetMetadata().GetOwner(), p.GetMetadata().GetOrigin())
		}
		return fmt.Sprintf("%s (%s)", text, p.GetStatus().GetDeletionActor())
	}
	return "deleted by " + p.GetStatus().GetDeletionActor()
}

// RemoveProject removes the record, releases its hosts and leaves a tombstone. An override of the deletion stays, because
// it keeps the project deleted. Any other override is removed.
func RemoveProject(t *state.Tx, p *carav1.Project, by api.Role, why string) error {
	meta, st := p.GetMetadata(), p.GetStatus()
	if err := api.CheckMove(api.Phase(st.GetPhase()), "", by); err != nil {
		return api.Conflict("project %q: %v", meta.GetName(), err)
	}
	EndMove(t, p, api.ReasonMoveCancelled, why) // a restore can begin without a node
	t.Remove(api.KindProject, meta.GetName())
	dropRevisions(t, p)
	leaveVolumes(t, p)
	releaseHosts(t, p)
	releasePorts(t, p)
	if o, ok := state.Read[*carav1.Override](t, meta.GetName()); ok && o.GetScope() != api.OverrideDeletion {
		EndOverride(t, o, "the project is gone")
	}
	t.Put(&carav1.Tombstone{
		Metadata:   &carav1.ObjectMeta{Name: meta.GetName(), CreationTimestamp: timestamppb.New(t.Now), Origin: meta.GetOrigin()},
		ProjectUid: meta.GetUid(), Reason: st.GetDeletionReason(), Actor: st.GetDeletionActor(),
		Owner: meta.GetOwner(), ExpireAt: p.GetSpec().GetExpireAt(), Time: timestamppb.New(t.Now),
	})
	RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonRemoved, why)
	dropUnused(t, p, nil, "is gone")
	return nil
}

// stillDue checks a loop's deletion again, since things may have changed after the decision: a manifest came back or moved
// to another source, the source was suspended, a person overrode git, or the expiry was moved. What it reads is a condition
// of the commit. On a change the loop gets ABORTED and decides again.
func stillDue(t *state.Tx, p *carav1.Project, reason string) error {
	switch reason {
	case api.ReasonPruned, api.ReasonSourceDeleted:
		return stillUnwanted(t, p, reason)
	case api.ReasonExpired:
		if at := p.GetStatus().GetExpireAt(); at == nil || at.AsTime().After(t.Now) {
			return notDue(p, "its expiry was moved")
		}
	}
	return nil
}

// stillUnwanted returns an error if a source that is not being deleted still declares the project.
func stillUnwanted(t *state.Tx, p *carav1.Project, reason string) error {
	name := p.GetMetadata().GetName()
	for _, c := range claimsOn(t, name) {
		src, ok := state.Read[*carav1.Source](t, c.GetSpec().GetSource())
		at := c.GetSpec().GetProject().GetSpec().GetExpireAt()
		if at != nil && !at.AsTime().After(t.Now) && c.GetSpec().GetSource() != SourceOf(p) {
			continue // it has expired there, so that source does not take it over
		}
		if c.GetSpec().GetSource() != SourceOf(p) && DeclaredBySource(t, c.GetSpec().GetSource(), c.GetSpec().GetProject()) != nil {
			continue // that source may not have it
		}
		if c.GetSpec().GetPresent() && ok && src.GetMetadata().GetDeletionTimestamp() == nil && src.GetMetadata().GetUid() == c.GetSpec().GetSourceUid() {
			return notDue(p, "source %q declares it in %s", c.GetSpec().GetSource(), c.GetSpec().GetFile())
		}
	}
	if reason != api.ReasonPruned {
		return nil
	}
	if src, ok := state.Read[*carav1.Source](t, SourceOf(p)); ok && src.GetSpec().GetSuspend() {
		return notDue(p, "its source %q is suspended", src.GetMetadata().GetName())
	}
	o, ok := state.Read[*carav1.Override](t, name)
	if ok && o.GetScope() != api.OverrideExpiry && outlived(t, o) == "" {
		return notDue(p, "%s", overrideText(o))
	}
	return nil
}

func notDue(p *carav1.Project, why string, args ...any) error {
	args = append([]any{p.GetMetadata().GetName()}, args...)
	return api.Conflict("project %q is not deleted: "+why, args...)
}

// GuardClaims is the key that guards all claims.
const GuardClaims = "claims"

// claimsOn returns the claims on a project. That no other claims exist is also a condition of the commit: a manifest that
// arrives at the same moment makes the transaction run again.
func claimsOn(t *state.Tx, project string) []*carav1.Claim {
	t.Object(state.KindGuard, GuardClaims)
	var claims []*carav1.Claim
	for _, name := range t.Seen.ClaimsOn(project) {
		source, _, _ := strings.Cut(name, "/")
		_, known := state.Get[*carav1.Source](t.Seen, source)
		if c, ok := state.Read[*carav1.Claim](t, name); ok && known {
			claims = append(claims, c)
		}
	}
	return claims
}
