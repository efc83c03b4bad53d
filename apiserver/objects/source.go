package objects

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// CreateSource creates a source.
func (s Sources) CreateSource(ctx context.Context, req *carav1.CreateSourceRequest) (*carav1.Source, error) {
	return create(ctx, s.DB, req.GetSource(), declareSource, s.overlaySource)
}

// PutSource creates or replaces a source.
func (s Sources) PutSource(ctx context.Context, req *carav1.PutSourceRequest) (*carav1.Source, error) {
	return put(ctx, s.DB, req.GetSource(), declareSource, s.overlaySource)
}

// applySource applies a source.
func applySource(t *state.Tx, m proto.Message, how rules.ApplyTerms) (before, after proto.Message, err error) {
	in := m.(*carav1.Source)
	if err := rules.MustMatch(t, api.KindSource, in, in.GetMetadata().GetResourceVersion()); err != nil {
		return nil, nil, err
	}
	return apply(declareSource)(t, m, how)
}

// declareSource creates or changes a source. It returns the source before, or nil, and after.
func declareSource(t *state.Tx, in *carav1.Source) (before, after *carav1.Source, err error) {
	name := in.GetMetadata().GetName()
	old, exists := state.Read[*carav1.Source](t, name)
	if err := rules.UnusedByProjects(t, old, in); err != nil {
		return nil, nil, err
	}
	if !exists {
		p := &carav1.Source{
			ApiVersion: api.APIVersion, Kind: api.KindSource,
			Metadata: &carav1.ObjectMeta{
				Name: name, Uid: state.NewUID(), Generation: 1, CreationTimestamp: timestamppb.New(t.Now), Owner: t.Actor.Name,
				Labels: in.GetMetadata().GetLabels(), Annotations: in.GetMetadata().GetAnnotations(),
			},
			Spec:   proto.CloneOf(in.GetSpec()),
			Status: &carav1.SourceStatus{},
		}
		t.Put(p)
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonCreated, "accepted by "+t.Actor.Name)
		return nil, p, nil
	}
	if err := notDeleted(old); err != nil {
		return nil, nil, err
	}
	p := proto.CloneOf(old)
	p.Metadata.Labels, p.Metadata.Annotations = in.GetMetadata().GetLabels(), in.GetMetadata().GetAnnotations()
	if !proto.Equal(old.GetSpec(), in.GetSpec()) {
		p.Spec = proto.CloneOf(in.GetSpec())
		p.Metadata.Generation++
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonSpecChanged, "changed by "+t.Actor.Name)
	}
	if proto.Equal(old, p) {
		return old, old, nil
	}
	t.Put(p)
	return old, p, nil
}

func notDeleted(src *carav1.Source) error {
	if src.GetMetadata().GetDeletionTimestamp() == nil {
		return nil
	}
	return api.Terminating("%s is being deleted: try again when it is gone", rules.Describe(src))
}

// GetSource returns one source.
func (s Sources) GetSource(_ context.Context, req *carav1.GetRequest) (*carav1.Source, error) {
	return shown(s.DB.Cache, req.GetName(), s.overlaySource)
}

// ListSources returns sources sorted by name.
func (s Sources) ListSources(_ context.Context, req *carav1.ListRequest) (*carav1.ListSourcesResponse, error) {
	items, meta, err := listed(s.DB.Cache, req, s.overlaySource)
	return &carav1.ListSourcesResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindSource), Items: items, Metadata: meta}, err
}

// DeleteSource begins a source's deletion. The reconciler does the rest and calls RemoveSource.
func (s Sources) DeleteSource(ctx context.Context, req *carav1.DeleteRequest) (*empty, error) {
	_, err := s.editSource(ctx, req.GetName(), func(t *state.Tx, src *carav1.Source) error {
		if err := rules.MustBe(src, req.GetUid(), ""); err != nil {
			return err
		}
		if src.GetMetadata().GetDeletionTimestamp() != nil {
			return nil
		}
		src.Metadata.DeletionTimestamp = timestamppb.New(t.Now)
		rules.RecordEvent(t, rules.RefTo(src), api.EventNormal, api.ReasonTerminating, "deleted by "+t.Actor.Name)
		return nil
	})
	return &empty{}, err
}

// removeBatch limits the changes in one transaction of RemoveSource.
const removeBatch = 20

// RemoveSource removes the record and the claims of a deleted source. Projects that it still owns lose their owner. If they
// are to be deleted with the source, the source stays until they are gone. The record goes in the last transaction, so an
// interrupted call can be repeated.
func (s Sources) RemoveSource(ctx context.Context, req *carav1.DeleteRequest) (*empty, error) {
	for orphaned, left := 0, true; left; {
		batch := 0
		err := s.DB.Transact(ctx, func(t *state.Tx) (err error) {
			batch, left, err = removeSource(t, req, orphaned)
			return err
		})
		if err != nil {
			return nil, err
		}
		orphaned += batch
	}
	s.Live.ForgetSource(req.GetName())
	return &empty{}, nil
}

// removeSource does one batch. It returns how many projects lost their owner and whether something is left to do.
func removeSource(t *state.Tx, req *carav1.DeleteRequest, before int) (orphaned int, left bool, err error) {
	src, err := rules.Named[*carav1.Source](t, req.GetName(), req.GetUid(), "")
	if err != nil {
		return 0, false, err
	}
	if src.GetMetadata().GetDeletionTimestamp() == nil {
		return 0, false, api.BadState("%s is not being deleted", rules.Describe(src))
	}
	projects := t.Seen.ProjectsOfOwner(api.PrefixSource + req.GetName())
	if len(projects) > 0 && src.GetSpec().GetOnDelete() == api.OnDeleteDelete {
		return 0, false, api.BadState("%s still owns %d projects, which go before it", rules.Describe(src), len(projects))
	}
	if len(projects) > 0 {
		orphaned, err = orphanProjects(t, src, projects[:min(len(projects), removeBatch)])
		return orphaned, true, err
	}
	for part := range parts(secretsOf(t.Seen, req.GetName()), partSecrets) {
		releaseSecrets(t, src, part)
		return 0, true, nil
	}
	staged, _ := state.Page[*carav1.StagedClaim](t.Seen, req.GetName()+"/", "", removeBatch, nil)
	for _, c := range staged {
		t.Remove(state.KindStaged, c.GetMetadata().GetName())
	}
	claims, _ := state.Page[*carav1.Claim](t.Seen, req.GetName()+"/", "", removeBatch, nil)
	for _, c := range claims {
		t.Remove(api.KindClaim, c.GetMetadata().GetName())
	}
	if len(staged)+len(claims) > 0 {
		return 0, true, nil
	}
	rules.RecordEvent(t, rules.RefTo(src), api.EventNormal, api.ReasonRemoved, fmt.Sprintf("the source is gone; %d projects belong to nobody now", before))
	t.Remove(api.KindSource, req.GetName())
	return 0, false, nil
}

// maxOrphanWrites leaves room in a transaction for one more project with its volumes, its override and its event.
const maxOrphanWrites = 100

// orphanProjects removes the owner of a source's projects and records events. It returns how many it did.
func orphanProjects(t *state.Tx, src *carav1.Source, projects []string) (int, error) {
	for i, name := range projects {
		if t.WritesSoFar() > maxOrphanWrites {
			return i, nil
		}
		old, ok := state.Read[*carav1.Project](t, name)
		if !ok {
			continue
		}
		p := proto.CloneOf(old)
		p.Metadata.Owner = ""
		rules.OwnVolumes(t, p)
		if err := rules.SettleOverride(t, p, "its source was deleted"); err != nil {
			return 0, err
		}
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonOrphaned, "its source "+src.GetMetadata().GetName()+" was deleted; nobody owns it now")
		t.Put(p)
	}
	return len(projects), nil
}
