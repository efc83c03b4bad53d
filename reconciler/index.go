package reconciler

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/plan"
)

// index joins the watched objects by source and by project, so that the cost of a pass depends on its source only, and a
// change finds the sources it concerns. It is updated by whole transactions.
type index struct {
	mu         sync.Mutex
	sources    map[string]*carav1.Source
	claims     map[string]map[string]*carav1.Claim // by source, then by project
	byProject  map[string]map[string]*carav1.Claim // the same, by project, then by source
	projects   map[string]*live
	owned      map[string]map[string]bool // by owner: projects
	loose      map[string]map[string]bool // by source: projects that may not be in place
	overrides  map[string]*carav1.Override
	tombstones map[string]*carav1.Tombstone
	written    map[string]*carav1.ClaimStatus // by claim: statuses written and not yet reported by the watch
}

// live is a project with the hash of its declaration, which is computed on first use.
type live struct {
	project *carav1.Project
	hash    string
}

func newIndex() *index {
	return &index{
		sources: map[string]*carav1.Source{}, claims: map[string]map[string]*carav1.Claim{},
		byProject: map[string]map[string]*carav1.Claim{}, projects: map[string]*live{}, owned: map[string]map[string]bool{},
		loose:     map[string]map[string]bool{},
		overrides: map[string]*carav1.Override{}, tombstones: map[string]*carav1.Tombstone{},
		written: map[string]*carav1.ClaimStatus{},
	}
}

func (x *index) change(changes []loop.Change) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	dirty := map[string]bool{}
	for _, c := range changes {
		switch obj := c.Object().(type) {
		case *carav1.Source:
			x.changeSource(obj, c.New == nil, dirty)
		case *carav1.Claim:
			x.changeClaim(obj, c.New == nil, dirty)
		case *carav1.Project:
			x.changeProject(obj, c.New == nil, dirty)
		case *carav1.Override:
			set(x.overrides, obj.GetMetadata().GetName(), obj, c.New == nil)
			x.concern(obj.GetMetadata().GetName(), dirty)
		case *carav1.Tombstone:
			set(x.tombstones, obj.GetMetadata().GetName(), obj, c.New == nil)
			x.concern(obj.GetMetadata().GetName(), dirty)
		}
	}
	return slices.Sorted(maps.Keys(dirty))
}

func set[T any](m map[string]T, key string, v T, gone bool) {
	if gone {
		delete(m, key)
		return
	}
	m[key] = v
}

// changeSource marks one source, and the other claimants of its projects if the source starts or stops releasing them.
func (x *index) changeSource(s *carav1.Source, gone bool, dirty map[string]bool) {
	name := s.GetMetadata().GetName()
	old := x.sources[name]
	set(x.sources, name, s, gone)
	dirty[name] = true
	if gone {
		delete(x.loose, name)
	}
	if !gone && old != nil && old.Metadata.Uid == s.Metadata.Uid && old.GetSpec().GetSuspend() == s.GetSpec().GetSuspend() &&
		(old.Metadata.DeletionTimestamp == nil) == (s.Metadata.DeletionTimestamp == nil) &&
		plan.Whole(old.GetStatus().GetSnapshot()) == plan.Whole(s.GetStatus().GetSnapshot()) {
		return
	}
	for project := range x.claims[name] {
		x.concern(project, dirty)
	}
	for project := range x.owned[plan.Owner(name)] {
		x.concern(project, dirty)
	}
}

func (x *index) changeClaim(c *carav1.Claim, gone bool, dirty map[string]bool) {
	source, project := c.GetSpec().GetSource(), c.GetSpec().GetProject().GetMetadata().GetName()
	if source == "" || project == "" {
		source, project, _ = strings.Cut(c.GetMetadata().GetName(), "/")
	}
	if w := x.written[c.GetMetadata().GetName()]; w != nil && (gone || proto.Equal(w, c.Status)) {
		delete(x.written, c.Metadata.Name)
	}
	put(x.claims, source, project, c, gone)
	put(x.byProject, project, source, c, gone)
	dirty[source] = true
	put(x.loose, source, project, true, false)
	x.concern(project, dirty)
}

func (x *index) changeProject(p *carav1.Project, gone bool, dirty map[string]bool) {
	name := p.GetMetadata().GetName()
	old := x.projects[name]
	if old != nil {
		put(x.owned, old.project.GetMetadata().GetOwner(), name, false, true)
	}
	if gone {
		delete(x.projects, name)
		x.concern(name, dirty)
		return
	}
	put(x.owned, p.GetMetadata().GetOwner(), name, true, false)
	next := &live{project: p}
	x.projects[name] = next
	if old != nil && sameDeclaration(old.project, p) {
		next.hash = old.hash
		if old.project.Metadata.Owner == p.Metadata.Owner && api.GoingAway(old.project) == api.GoingAway(p) {
			return // only the status changed
		}
	}
	x.concern(name, dirty)
}

// sameDeclaration is a cheap check for versions of a project with the same hash. It may return false for equal hashes.
func sameDeclaration(a, b *carav1.Project) bool {
	return a.Metadata.GetUid() == b.Metadata.GetUid() && a.Metadata.GetGeneration() == b.Metadata.GetGeneration() &&
		maps.Equal(a.Metadata.GetLabels(), b.Metadata.GetLabels()) && maps.Equal(a.Metadata.GetAnnotations(), b.Metadata.GetAnnotations())
}

func put[T any](m map[string]map[string]T, outer, inner string, v T, gone bool) {
	if !gone {
		if m[outer] == nil {
			m[outer] = map[string]T{}
		}
		m[outer][inner] = v
		return
	}
	if all := m[outer]; all != nil {
		if delete(all, inner); len(all) == 0 {
			delete(m, outer)
		}
	}
}

// concern marks every source that claims the project or owns it.
func (x *index) concern(project string, dirty map[string]bool) {
	for source := range x.byProject[project] {
		dirty[source] = true
		put(x.loose, source, project, true, false)
	}
	if l := x.projects[project]; l != nil {
		if owner, ok := api.SourceOf(l.project.GetMetadata().GetOwner()); ok {
			dirty[owner] = true
			put(x.loose, owner, project, true, false)
		}
	}
}

// input returns the input for one source's plan, or false if there is no such source. It has the rows that changed since
// they were last found in place, or all rows if whole is true.
func (x *index) input(source string, memories map[string]*plan.Memory, whole bool, now time.Time) (plan.Input, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.sources[source]
	if s == nil {
		return plan.Input{}, false
	}
	in := plan.Input{Source: s, Now: now, Settled: len(x.claims[source])}
	in.Check = s.GetStatus().GetObservedGeneration() != s.GetMetadata().GetGeneration() && s.GetStatus().GetSnapshot() != nil
	if !whole && !in.Check && s.GetMetadata().GetDeletionTimestamp() == nil {
		for project := range x.loose[source] {
			x.look(&in, project, x.claims[source][project], memories)
		}
		return in, true
	}
	claims := x.claims[source]
	for project, claim := range claims {
		x.look(&in, project, claim, memories)
	}
	for project := range x.owned[plan.Owner(source)] {
		if claims[project] == nil {
			x.look(&in, project, nil, memories)
		}
	}
	return in, true
}

// look adds one project's row to the input, unless the project is in place.
func (x *index) look(in *plan.Input, project string, claim *carav1.Claim, memories map[string]*plan.Memory) {
	source := in.Source.Metadata.Name
	if claim == nil && !x.owned[plan.Owner(source)][project] {
		put(x.loose, source, project, false, true)
		return
	}
	all := in.Source.Metadata.DeletionTimestamp != nil || in.Check
	if !all && claim != nil && x.inPlace(in.Source, project, claim) {
		put(x.loose, source, project, false, true)
		return
	}
	r := x.row(source, project, claim, memories[project])
	if !all && plan.Settled(&r, in.Source) { // the claim's hash is from another version of Cara
		put(x.loose, source, project, false, true)
		return
	}
	put(x.loose, source, project, true, false)
	in.Rows = append(in.Rows, r)
	if claim != nil {
		in.Settled--
	}
}

// inPlace looks only at what plan.Settled needs: a pass over everything asks it for every project.
func (x *index) inPlace(s *carav1.Source, project string, claim *carav1.Claim) bool {
	r := plan.Row{Claim: claim, Want: claim.GetSpec().GetHash(), Status: x.status(claim), Override: x.overrides[project]}
	r.Project, r.Live = x.Project(project)
	return plan.Settled(&r, s)
}

// status is the status that was written last, also if the watch has not reported it yet.
func (x *index) status(claim *carav1.Claim) *carav1.ClaimStatus {
	if w := x.written[claim.GetMetadata().GetName()]; w != nil {
		return w
	}
	return claim.GetStatus()
}

// Source implements plan.State. x.mu is held for all methods of plan.State.
func (x *index) Source(name string) *carav1.Source { return x.sources[name] }

func (x *index) Claims(project string) map[string]*carav1.Claim { return x.byProject[project] }

func (x *index) Project(name string) (*carav1.Project, string) {
	l := x.projects[name]
	if l == nil {
		return nil, ""
	}
	if l.hash == "" {
		l.hash = api.ClaimHash(l.project)
	}
	return l.project, l.hash
}

func (x *index) Override(project string) *carav1.Override { return x.overrides[project] }

func (x *index) Tombstone(project string) *carav1.Tombstone { return x.tombstones[project] }

func (x *index) row(source, project string, claim *carav1.Claim, m *plan.Memory) plan.Row {
	r := plan.NewRow(x, source, project)
	r.Memory, r.Status = m, x.status(claim)
	return r
}

// wrote remembers written statuses until the watch reports them.
func (x *index) wrote(source string, updates []*carav1.ClaimUpdate) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, u := range updates {
		c := x.claims[source][u.Project]
		if c == nil || u.Remove || proto.Equal(c.Status, u.Status) {
			continue
		}
		x.written[c.Metadata.Name] = u.Status
	}
}
