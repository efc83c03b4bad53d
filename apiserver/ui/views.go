package ui

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// pathSessions is the view that differs for people with the same rights. The others depend on the address and on rights alone, so
// that all who look at one can share its renderings.
const pathSessions = "sessions"

const methodListTokens = carav1.TokenService_ListTokens_FullMethodName

// views computes what the page shows, as the person who asks.
type views struct {
	api     clients
	mayCall func(identity.Actor, string) error
}

// byPath returns the views by their path below Prefix.
func (vs views) byPath() map[string]show {
	return map[string]show{
		"{$}":                   vs.overview,
		"projects":              vs.projects,
		"projects/{name}":       vs.project,
		"projects/{name}/logs":  vs.logs,
		"projects/{name}/shell": vs.shell,
		"sources":               vs.sources,
		"sources/{name}":        vs.source,
		"nodes":                 vs.nodes,
		"nodes/{name}":          vs.node,
		"previews":              vs.previews,
		"volumes":               vs.volumes,
		"secrets":               vs.secrets,
		"tokens":                vs.tokens,
		"servers":               vs.servers,
		pathSessions:            vs.sessions,
		"search":                vs.search,
	}
}

// may reports whether the person may call a method for an object with this name.
func (vs views) may(a identity.Actor, method, name string) bool {
	return vs.mayCall(a, method) == nil && a.MayName(name)
}

func (vs views) sources(ctx context.Context, r request) (view, error) {
	return plain(ctx, r, "Sources", []string{api.KindSource}, vs.api.sources.ListSources, &carav1.ListRequest{}, func(s *carav1.Source, words []string) bool {
		return all(words, s.GetMetadata().GetName(), s.GetSpec().GetGit().GetUrl(), s.GetSpec().GetDir().GetPath(), sourceText(s))
	})
}

// source is everything about one source.
type source struct {
	*carav1.Source
	Problem *carav1.Condition
	Claims  []*carav1.Claim
	More    int
	Plan    *carav1.SourcePlan
	Actions []offer
}

func (vs views) source(ctx context.Context, r request) (view, error) {
	name := r.name
	var err error
	s := get(ctx, &err, vs.api.sources.GetSource, &carav1.GetRequest{Name: name})
	claims := get(ctx, &err, vs.api.sources.ListClaims, &carav1.ListClaimsRequest{Source: name})
	if err != nil {
		return view{}, err
	}
	out := &source{Source: s, Problem: api.SourceProblem(s), Claims: claims.GetItems(), Actions: vs.offers(r.actor, s)}
	// Claims that need attention come first.
	slices.SortStableFunc(out.Claims, func(a, b *carav1.Claim) int { return settled(a) - settled(b) })
	if len(out.Claims) > 5*window {
		out.More = len(out.Claims) - 5*window
		out.Claims = out.Claims[:5*window]
	}
	return view{title: name, nav: "sources", template: "source", data: out, kinds: []string{api.KindSource, api.KindClaim}, name: name}, nil
}

func settled(c *carav1.Claim) int {
	if c.GetStatus().GetState() == api.ClaimApplied && c.GetSpec().GetPresent() {
		return 1
	}
	return 0
}

// node is a node beside what runs on it.
type node struct {
	*carav1.Node
	Projects []*carav1.Project
	Count    int // of its projects
	Bars     []bar
	Problems []*carav1.Condition
	Actions  []offer
}

// bar shows how much of something is used.
type bar struct {
	Name, Text string
	Used, All  int64
}

func (vs views) nodes(ctx context.Context, r request) (view, error) {
	var err error
	nodes := get(ctx, &err, vs.api.nodes.ListNodes, &carav1.ListRequest{})
	projects := get(ctx, &err, vs.api.projects.ListProjects, &carav1.ListProjectsRequest{})
	if err != nil {
		return view{}, err
	}
	on := map[string][]*carav1.Project{}
	for _, p := range projects.GetItems() {
		on[p.GetStatus().GetNodeRef()] = append(on[p.GetStatus().GetNodeRef()], p)
	}
	l := listOf(r, "nodes", nodes.GetItems(), nodeMatches)
	data := list[node]{rows: l.rows, Items: make([]node, len(l.Items))}
	for i, n := range l.Items {
		data.Items[i] = nodeOf(n, on[n.GetMetadata().GetName()])
	}
	return view{title: "Nodes", nav: "nodes", template: "nodes", data: data, kinds: []string{api.KindNode, api.KindProject}}, nil
}

func (vs views) node(ctx context.Context, r request) (view, error) {
	name := r.name
	var err error
	n := get(ctx, &err, vs.api.nodes.GetNode, &carav1.GetRequest{Name: name})
	projects := get(ctx, &err, vs.api.projects.ListProjects, &carav1.ListProjectsRequest{NodeRef: name})
	if err != nil {
		return view{}, err
	}
	out := nodeOf(n, projects.GetItems())
	out.Actions = vs.offers(r.actor, n)
	return view{title: name, nav: "nodes", template: "node", data: out, kinds: []string{api.KindNode, api.KindProject}}, nil
}

// nodeMatches reports whether each word is in a text by which people know a node.
func nodeMatches(n *carav1.Node, words []string) bool {
	inNoLabel := slices.DeleteFunc(slices.Clone(words), func(word string) bool { return hasLabel(n.GetMetadata().GetLabels(), word) })
	return all(inNoLabel, n.GetMetadata().GetName(), nodeText(n))
}

// nodeOf adds up what the projects on a node have requested.
func nodeOf(n *carav1.Node, projects []*carav1.Project) node {
	out := node{Node: n, Projects: projects[:min(len(projects), window)], Count: len(projects)}
	var cpu, memory int64
	for _, p := range projects {
		for _, s := range p.GetSpec().GetServices() {
			requests := s.GetResources().GetRequests()
			if requests == nil {
				continue
			}
			c, _ := syntax.MilliCPU(requests.GetCpu()) // validated when it was stored; 0 if it is not set
			m, _ := syntax.Bytes(requests.GetMemory())
			cpu, memory = cpu+c, memory+m
		}
	}
	capacity := n.GetStatus().GetInfo().GetCapacity()
	if all, err := syntax.MilliCPU(capacity.GetCpu()); err == nil && all > 0 {
		out.Bars = append(out.Bars, bar{"CPU requested", cpuText(cpu) + " of " + cpuText(all), cpu, all})
	}
	if all, err := syntax.Bytes(capacity.GetMemory()); err == nil && all > 0 {
		out.Bars = append(out.Bars, bar{"Memory requested", bytesText(memory) + " of " + bytesText(all), memory, all})
	}
	if all, err := syntax.Bytes(capacity.GetDisk()); err == nil && all > 0 {
		free, _ := syntax.Bytes(capacity.GetDiskFree())
		out.Bars = append(out.Bars, bar{"Disk used", bytesText(all-free) + " of " + bytesText(all), all - free, all})
	}
	for _, c := range n.GetStatus().GetConditions() {
		if api.NodeTroubled(c) {
			out.Problems = append(out.Problems, c)
		}
	}
	return out
}

func (vs views) previews(ctx context.Context, r request) (view, error) {
	l, err := vs.api.projects.ListProjects(ctx, &carav1.ListProjectsRequest{})
	if err != nil {
		return view{}, err
	}
	type preview struct {
		*carav1.Project
		Extend bool
	}
	var out []preview
	for _, p := range l.GetItems() {
		if api.Expiry(p) != nil {
			out = append(out, preview{p, vs.may(r.actor, carav1.ProjectService_ExtendProject_FullMethodName, p.GetMetadata().GetName())})
		}
	}
	slices.SortStableFunc(out, func(a, b preview) int {
		return api.Expiry(a.Project).AsTime().Compare(api.Expiry(b.Project).AsTime())
	})
	data := listOf(r, "previews", out, func(p preview, words []string) bool { return matches(p.Project, words) })
	return view{title: "Previews", nav: "previews", template: "previews", data: data, kinds: []string{api.KindProject}}, nil
}

func (vs views) volumes(ctx context.Context, r request) (view, error) {
	var err error
	l := get(ctx, &err, vs.api.volumes.ListVolumes, &carav1.ListVolumesRequest{})
	projects := get(ctx, &err, vs.api.projects.ListProjects, &carav1.ListProjectsRequest{})
	if err != nil {
		return view{}, err
	}
	backups := slices.DeleteFunc(slices.Clone(projects.GetItems()), func(p *carav1.Project) bool { return p.GetSpec().GetBackup() == nil })
	data := struct {
		list[*carav1.Volume]
		Backups     []*carav1.Project
		MoreBackups int
		Delete      bool
	}{
		list: listOf(r, "volumes", l.GetItems(), func(v *carav1.Volume, words []string) bool {
			return all(words, v.GetMetadata().GetName(), v.GetStatus().GetState(), v.GetStatus().GetNode())
		}),
		Backups: backups[:min(len(backups), window)], MoreBackups: max(0, len(backups)-window),
		Delete: vs.mayCall(r.actor, carav1.VolumeService_DeleteVolume_FullMethodName) == nil,
	}
	return view{title: "Volumes", nav: "volumes", template: "volumes", data: data, kinds: []string{api.KindVolume, api.KindProject}}, nil
}

func (vs views) secrets(ctx context.Context, r request) (view, error) {
	return plain(ctx, r, "Secrets", []string{api.KindSecret}, vs.api.secrets.ListSecrets, &carav1.ListRequest{}, func(s *carav1.Secret, words []string) bool {
		return all(words, s.GetMetadata().GetName(), s.GetType())
	})
}

func (vs views) tokens(ctx context.Context, r request) (view, error) {
	l, err := vs.api.tokens.ListTokens(ctx, &carav1.ListRequest{})
	if err != nil {
		return view{}, err
	}
	people := slices.DeleteFunc(slices.Clone(l.GetItems()), func(t *carav1.Token) bool { return t.GetRole() == api.RoleNode })
	return view{title: "Tokens", nav: "tokens", template: "tokens", data: listOf(r, "tokens", people, func(t *carav1.Token, words []string) bool {
		return all(words, t.GetMetadata().GetName(), string(t.GetRole()))
	}), kinds: []string{api.KindToken}}, nil
}

// found is one result of a search.
type found struct{ Kind, Name, Link, Text string }

// search looks for words in the names of all objects, and in the hosts and owners of projects.
func (vs views) search(ctx context.Context, r request) (view, error) {
	const most = 50
	q := clipped(r.query.Get("q"))
	words := strings.Fields(strings.ToLower(q))
	var out []found
	add := func(kind, name, at, note string) {
		if len(out) < most {
			out = append(out, found{kind, name, at, note})
		}
	}
	if len(words) > 0 {
		if err := vs.searchIn(ctx, words, add); err != nil {
			return view{}, err
		}
	}
	data := struct {
		Query string
		Found []found
		Full  bool
	}{q, out, len(out) == most}
	return view{title: "Search", nav: "search", template: "search", data: data}, nil
}

// searchIn calls add for each object that matches. Projects whose name matches come before those that match otherwise.
func (vs views) searchIn(ctx context.Context, words []string, add func(kind, name, at, note string)) error {
	var err error
	projects := get(ctx, &err, vs.api.projects.ListProjects, &carav1.ListProjectsRequest{})
	nodes := get(ctx, &err, vs.api.nodes.ListNodes, &carav1.ListRequest{})
	sources := get(ctx, &err, vs.api.sources.ListSources, &carav1.ListRequest{})
	volumes := get(ctx, &err, vs.api.volumes.ListVolumes, &carav1.ListVolumesRequest{})
	secrets := get(ctx, &err, vs.api.secrets.ListSecrets, &carav1.ListRequest{})
	if err != nil {
		return err
	}
	for _, byName := range []bool{true, false} {
		for _, p := range projects.GetItems() {
			name := p.GetMetadata().GetName()
			if named(name, words) == byName && (byName || matches(p, words)) {
				add(api.KindProject, name, link(api.KindProject, name), phaseText(p))
			}
		}
	}
	for _, n := range nodes.GetItems() {
		addNamed(n, words, nodeText(n), add)
	}
	for _, s := range sources.GetItems() {
		addNamed(s, words, sourceText(s), add)
	}
	for _, v := range volumes.GetItems() {
		addNamed(v, words, v.GetStatus().GetState(), add)
	}
	for _, s := range secrets.GetItems() {
		addNamed(s, words, s.GetType(), add)
	}
	servers, err := vs.api.info.ListServers(ctx, &emptypb.Empty{})
	if err != nil {
		return nil //nolint:nilerr // the other results count more
	}
	for _, s := range servers.GetItems() {
		if serverMatches(s, words) {
			add("Server", serverName(s), Prefix+"servers", s.GetVersion())
		}
	}
	return nil
}

func addNamed(m proto.Message, words []string, note string, add func(kind, name, at, note string)) {
	if name := api.Meta(m).GetName(); named(name, words) {
		add(api.Kind(m), name, link(api.Kind(m), name), note)
	}
}

// named reports whether a name contains each word.
func named(name string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !has(name, word) })
}
