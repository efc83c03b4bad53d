package apiserver

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// historyLength is how many of its last specs are kept of a project.
const historyLength = 10

// revisionKey is where one of a project's last specs is kept. Revisions are read seldom, so the cache does without
// them. Generations have ten digits, so that keys sort by them.
func revisionKey(project string, generation int32) string {
	return fmt.Sprintf("revisions/%s/%010d", project, generation)
}

// remember keeps the spec that a project has now, and forgets the one that is too old. It goes with every write of a
// new generation, in the same transaction.
func (t *tx) remember(p *carav1.Project, reason string) {
	meta := p.GetMetadata()
	generation := meta.GetGeneration()
	actor := t.actor.Name
	if !t.actor.Person() && meta.GetOwner() != "" {
		actor = meta.GetOwner()
	}
	r := &carav1.Revision{
		Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("%s/%d", meta.GetName(), generation), CreationTimestamp: timestamppb.New(t.now)},
		Project: &carav1.Project{
			ApiVersion: api.APIVersion, Kind: api.KindProject,
			Metadata: &carav1.ObjectMeta{Name: meta.GetName(), Labels: meta.GetLabels(), Annotations: meta.GetAnnotations()},
			Spec:     p.GetSpec(),
		},
		Generation: generation, SpecHash: p.GetStatus().GetSpecHash(), Actor: actor, Time: timestamppb.New(t.now), Reason: reason,
	}
	if strings.HasPrefix(actor, sourcePrefix) {
		r.Origin = meta.GetOrigin()
	}
	t.write(revisionKey(meta.GetName(), generation), r)
	if old := generation - historyLength; old > 0 {
		t.write(revisionKey(meta.GetName(), old), nil)
	}
}

// forget drops the history of a project that goes: a namesake has another one.
func (t *tx) forget(p *carav1.Project) {
	newest := p.GetMetadata().GetGeneration()
	for g := max(1, newest-historyLength+1); g <= newest; g++ {
		t.write(revisionKey(p.GetMetadata().GetName(), g), nil)
	}
}

// GetProjectHistory returns the project's last specs, newest first.
func (s projectService) GetProjectHistory(ctx context.Context, req *carav1.GetRequest) (*carav1.ProjectHistory, error) {
	if _, ok := lookup[*carav1.Project](s.cache, req.GetName()); !ok {
		return nil, notFound(api.KindProject, req.GetName())
	}
	items, err := s.revisions(ctx, req.GetName())
	return &carav1.ProjectHistory{Items: items}, err
}

func (s *Server) revisions(ctx context.Context, project string) ([]*carav1.Revision, error) {
	page, err := s.cfg.Store.List(ctx, "revisions/"+project+"/", store.ListOptions{Limit: 2 * historyLength})
	if err != nil {
		return nil, storeError(err)
	}
	items := make([]*carav1.Revision, 0, len(page.KVs))
	for _, kv := range page.KVs {
		m, err := decode(&carav1.Revision{}, kv.Value, kv.Modified)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", kv.Key, err)
		}
		items = append(items, m.(*carav1.Revision))
	}
	slices.Reverse(items)
	return items, nil
}

// RollbackProject writes one of the project's last specs again.
func (s projectService) RollbackProject(ctx context.Context, req *carav1.RollbackProjectRequest) (*carav1.Project, error) {
	if _, ok := lookup[*carav1.Project](s.cache, req.GetName()); !ok {
		return nil, notFound(api.KindProject, req.GetName())
	}
	items, err := s.revisions(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	to, err := pickRevision(req.GetName(), req.GetTo(), items)
	if err != nil {
		return nil, err
	}
	var out *carav1.Project
	err = s.transact(ctx, func(t *tx) error {
		declared := proto.CloneOf(to.GetProject())
		_, after, err := t.declare(declared, req.GetTerms())
		out = after
		return err
	})
	return out, err
}

// pickRevision finds what a person means: a generation, or the newest spec of a commit.
func pickRevision(project, to string, items []*carav1.Revision) (*carav1.Revision, error) {
	generation, err := strconv.ParseInt(to, 10, 32)
	byNumber := err == nil && len(to) < 7
	for _, r := range items {
		if byNumber && int64(r.GetGeneration()) == generation || len(to) >= 7 && strings.HasPrefix(r.GetOrigin().GetRevision(), to) {
			return r, nil
		}
	}
	have := make([]string, 0, len(items))
	for _, r := range items {
		name := strconv.Itoa(int(r.GetGeneration()))
		if rev := r.GetOrigin().GetRevision(); rev != "" {
			name += " (" + rev[:min(7, len(rev))] + ")"
		}
		have = append(have, name)
	}
	return nil, api.Errorf(codes.NotFound, api.TitleNotFound,
		"project %q has no revision %q: want a generation, or 7 characters or more of a commit, of %s", project, to, strings.Join(have, ", "))
}
