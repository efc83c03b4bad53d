package objects

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// GetProject returns one project.
func (s Projects) GetProject(_ context.Context, req *carav1.GetRequest) (*carav1.Project, error) {
	return shown(s.DB.Cache, req.GetName(), s.overlayProject)
}

// ListProjects returns projects sorted by name.
func (s Projects) ListProjects(_ context.Context, req *carav1.ListProjectsRequest) (*carav1.ListProjectsResponse, error) {
	match, err := projectMatch(req)
	if err != nil {
		return nil, err
	}
	items, meta := state.Page(s.DB.Cache, "", req.GetPageToken(), req.GetLimit(), match)
	s.overlayProjects(items)
	return &carav1.ListProjectsResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindProject), Items: items, Metadata: meta}, nil
}

// WatchProjects streams the matching projects and then their changes.
func (s Projects) WatchProjects(req *carav1.WatchProjectsRequest, out carav1.ProjectService_WatchProjectsServer) error {
	match, err := projectMatch(req)
	if err != nil {
		return err
	}
	if match == nil {
		match = func(*carav1.Project) bool { return true }
	}
	if name := req.GetName(); name != "" {
		rest := match
		match = func(p *carav1.Project) bool { return p.GetMetadata().GetName() == name && rest(p) }
	}
	return watchBeside(out.Context(), s.DB, req.GetResourceVersion(), match, s.besideNodes, s.overlayProject, func(typ string, object *carav1.Project, rev string) error {
		return out.Send(&carav1.ProjectEvent{Type: typ, Object: object, ResourceVersion: rev})
	})
}

// besideNodes returns the projects of nodes that became NotReady or Ready in a transaction, because only that changes the
// last-seen time of the projects. It leaves out a project that has changed since: its own change follows.
func (s *Service) besideNodes(tx state.Transaction) []*carav1.Project {
	var out []*carav1.Project
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		if ch.Kind != api.KindNode || ch.Old != nil && missed(ch.Old) == missed(ch.New) {
			continue
		}
		for _, name := range s.DB.Cache.View().ProjectsOnNode(ch.Name) {
			if p, ok := state.Get[*carav1.Project](s.DB.Cache, name); ok {
				if at, ok := api.ParseRevision(p.GetMetadata().GetResourceVersion()); ok && at <= tx.Rev {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// missed reports whether a node is NotReady or deleted.
func missed(m proto.Message) bool {
	n, ok := m.(*carav1.Node)
	return !ok || n.GetStatus().GetState() == api.NodeNotReady
}

// ListOverrides returns the existing overrides.
func (s Projects) ListOverrides(_ context.Context, req *carav1.ListOverridesRequest) (*carav1.ListOverridesResponse, error) {
	match, err := labelMatch[*carav1.Override](req.GetLabelSelector())
	if err != nil {
		return nil, err
	}
	items, meta := state.Page(s.DB.Cache, "", req.GetPageToken(), req.GetLimit(), match)
	if req.GetProject() != "" {
		items, meta = state.PageOf(s.DB.Cache.View(), []string{req.GetProject()}, 0, match)
	}
	return &carav1.ListOverridesResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindOverride), Items: items, Metadata: meta}, nil
}

// ListTombstones returns the tombstones of deleted projects.
func (s Projects) ListTombstones(_ context.Context, req *carav1.ListRequest) (*carav1.ListTombstonesResponse, error) {
	items, meta, err := listed(s.DB.Cache, req, asStored[*carav1.Tombstone])
	return &carav1.ListTombstonesResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindTombstone), Items: items, Metadata: meta}, err
}

// projectMatch returns the filter as a function; nil matches everything.
func projectMatch(f projectFilter) (func(*carav1.Project) bool, error) {
	for i, phase := range f.GetPhase() {
		if !api.KnownPhase(api.Phase(phase)) {
			return nil, api.Invalid("the request", api.Field(api.Element("phase", i), "is %q; it must be one of %v", phase, api.Phases()))
		}
	}
	byLabel, err := labelMatch[*carav1.Project](f.GetLabelSelector())
	if err != nil {
		return nil, err
	}
	if len(f.GetPhase()) == 0 && f.GetNodeRef() == "" && f.GetOwner() == "" && f.GetLabelSelector() == "" {
		return nil, nil
	}
	return func(p *carav1.Project) bool {
		return (len(f.GetPhase()) == 0 || slices.Contains(f.GetPhase(), p.GetStatus().GetPhase())) &&
			(f.GetNodeRef() == "" || f.GetNodeRef() == p.GetStatus().GetNodeRef()) &&
			(f.GetOwner() == "" || f.GetOwner() == p.GetMetadata().GetOwner()) && byLabel(p)
	}, nil
}

// projectFilter is the common part of list and watch requests for projects.
type projectFilter interface {
	GetPhase() []string
	GetNodeRef() string
	GetOwner() string
	GetLabelSelector() string
}
