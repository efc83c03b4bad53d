package dispatch

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func projectOn(name, node string, change ...func(*carav1.Project)) *carav1.Project {
	p := &carav1.Project{Metadata: &carav1.ObjectMeta{Name: name}, Spec: &carav1.ProjectSpec{}, Status: &carav1.ProjectStatus{NodeRef: node}}
	for _, c := range change {
		c(p)
	}
	return p
}

func volumeOn(name, node string) *carav1.Volume {
	return &carav1.Volume{Metadata: &carav1.ObjectMeta{Name: name}, Status: &carav1.VolumeStatus{Node: node}}
}

func named(kind string, m proto.Message) state.Change {
	return state.Change{Kind: kind, Name: api.Meta(m).GetName(), New: m}
}

// TestAChangeReachesTheSessionsThatItConcerns: each change wakes the sessions that it concerns, and no other.
func TestAChangeReachesTheSessionsThatItConcerns(t *testing.T) {
	secret := func(p *carav1.Project) {
		p.Spec.Services = []*carav1.Service{{Name: "web", Env: []*carav1.EnvVar{{Name: "A", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "login", Key: "k"}}}}}}
	}
	moving := func(p *carav1.Project) { p.Status.Move = &carav1.Move{To: "d"} }
	held := func(p *carav1.Project) { p.Status.HeldBy = "c" }
	restoring := func(f *assignmentFeed, d *deliveries) { d.restores(f) }
	for _, test := range []struct {
		name    string
		before  []state.Change
		change  state.Change
		restore string // the node whose agent restores a volume
		want    map[string]assignmentsDue
	}{
		{
			"a project's new state goes to its node",
			[]state.Change{named(api.KindProject, projectOn("shop", "a"))},
			named(api.KindProject, projectOn("shop", "a")), "",
			map[string]assignmentsDue{"a": {projects: set("shop")}},
		},
		{
			"a new project goes to its node", nil,
			state.Change{Kind: api.KindProject, Name: "shop", New: projectOn("shop", "a"), Created: true},
			"",
			map[string]assignmentsDue{"a": {projects: set("shop")}},
		},
		{
			"a project that leaves goes to both nodes",
			[]state.Change{named(api.KindProject, projectOn("shop", "a"))},
			named(api.KindProject, projectOn("shop", "b")), "",
			map[string]assignmentsDue{"a": {projects: set("shop")}, "b": {projects: set("shop")}},
		},
		{
			"a held project goes to the node that holds it, too",
			[]state.Change{named(api.KindProject, projectOn("shop", "b", held))},
			named(api.KindProject, projectOn("shop", "b")), "",
			map[string]assignmentsDue{"b": {projects: set("shop")}, "c": {projects: set("shop")}},
		},
		{
			"a deleted project goes to the node that it had",
			[]state.Change{named(api.KindProject, projectOn("shop", "a"))},
			state.Change{Kind: api.KindProject, Name: "shop"},
			"",
			map[string]assignmentsDue{"a": {projects: set("shop")}},
		},
		{
			"a volume goes to its nodes",
			[]state.Change{named(api.KindVolume, volumeOn("shop.data", "a"))},
			named(api.KindVolume, volumeOn("shop.data", "b")), "",
			map[string]assignmentsDue{"a": {volumes: set("shop.data")}, "b": {volumes: set("shop.data")}},
		},
		{
			"a Secret goes to the nodes of the projects that use it",
			[]state.Change{named(api.KindProject, projectOn("shop", "a", secret)), named(api.KindProject, projectOn("blog", "b"))},
			named(api.KindSecret, &carav1.Secret{Metadata: &carav1.ObjectMeta{Name: "login"}}), "",
			map[string]assignmentsDue{"a": {projects: set("shop")}},
		},
		{
			"a Secret goes to the nodes that restore volumes", nil,
			named(api.KindSecret, &carav1.Secret{Metadata: &carav1.ObjectMeta{Name: "login"}}), "b",
			map[string]assignmentsDue{"b": {secrets: set("login")}},
		},
		{
			"a node's address goes to the projects that move to it",
			[]state.Change{named(api.KindProject, projectOn("shop", "a", moving)), named(api.KindProject, projectOn("blog", "d"))},
			named(api.KindNode, &carav1.Node{Metadata: &carav1.ObjectMeta{Name: "d"}}), "",
			map[string]assignmentsDue{"a": {projects: set("shop")}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			cache, d, feeds := state.NewCache(100), &deliveries{}, map[string]*assignmentFeed{}
			for _, node := range []string{"a", "b", "c", "d"} {
				feeds[node] = newAssignmentFeed()
				feeds[node].begin()
				<-feeds[node].noted
				d.enter(node, feeds[node])
			}
			if test.restore != "" {
				restoring(feeds[test.restore], d)
			}
			cache.Apply(state.Transaction{Rev: 1, Changes: slices.Clone(test.before)})
			cache.Apply(state.Transaction{Rev: 2, Changes: []state.Change{test.change}})
			txs, _, _ := cache.After(1)
			d.deliver(txs[len(txs)-1], cache.View())
			for node, f := range feeds {
				want, concerned := test.want[node]
				if woken := len(f.noted) > 0; woken != concerned {
					t.Errorf("node %s: woken %t, want %t", node, woken, concerned)
				}
				if got := f.take(); !sameDue(got, want) {
					t.Errorf("node %s: %+v is due, want %+v", node, got, want)
				}
			}
		})
	}
}

func set(names ...string) map[string]struct{} {
	out := map[string]struct{}{}
	for _, name := range names {
		out[name] = struct{}{}
	}
	return out
}

func sameDue(a, b assignmentsDue) bool {
	same := func(x, y map[string]struct{}) bool { return len(x) == 0 && len(y) == 0 || cmp.Equal(x, y) }
	return a.all == b.all && same(a.projects, b.projects) && same(a.volumes, b.volumes) && same(a.secrets, b.secrets)
}

// TestAnUnknownStateIsComparedByAll: if it is not known which node a project had, each session compares what its agent knows.
func TestAnUnknownStateIsComparedByAll(t *testing.T) {
	d, f := &deliveries{}, newAssignmentFeed()
	d.enter("a", f)
	d.deliver(state.Transaction{Rev: 1, Changes: []state.Change{named(api.KindProject, projectOn("shop", "b"))}}, state.NewCache(1).View())
	if !f.take().all {
		t.Error("a session was not told to compare everything")
	}
}

// TestANewerSessionGetsTheChanges: the session of an older connection gets nothing, and its end does not end the newer one.
func TestANewerSessionGetsTheChanges(t *testing.T) {
	d, older, newer := &deliveries{}, newAssignmentFeed(), newAssignmentFeed()
	d.enter("a", older)
	d.enter("a", newer)
	d.leave("a", older)
	d.deliver(state.Transaction{Rev: 1, Changes: []state.Change{{Kind: api.KindProject, Name: "shop", New: projectOn("shop", "a"), Created: true}}}, state.NewCache(1).View())
	if len(older.take().projects) != 0 || len(newer.take().projects) != 1 {
		t.Error("the change did not reach the newer session alone")
	}
}

// TestACredentialReachesTheSessionsThatNeedIt: those that have a host with it and those that get all routes, and no other.
func TestACredentialReachesTheSessionsThatNeedIt(t *testing.T) {
	x := NewRouteIndex()
	s := &Dispatcher{Routes: x}
	onDemand := []string{api.CapabilityIngress, api.CapabilityRoutesOnDemand}
	feeds := map[string]*routeFeed{
		"all":   newRouteFeed(s, &Session{Node: "all"}),
		"needs": newRouteFeed(s, &Session{Node: "needs", capabilities: onDemand}),
		"other": newRouteFeed(s, &Session{Node: "other", capabilities: onDemand}),
	}
	for _, f := range feeds {
		if err := x.enter(t.Context(), f, 0, nil, func() []string { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	list := credential{kindPasswordList, "users"}
	entry := &hostEntry{needs: []credential{list}}
	told := func() map[string]struct{} {
		out := map[string]struct{}{}
		for name, f := range feeds {
			if _, ok := f.credentials[list]; ok {
				out[name] = struct{}{}
			}
			f.changes = newChanges()
		}
		return out
	}
	change := &state.Change{Kind: api.KindSecret, Name: "users"}

	feeds["needs"].need("shop.test", entry, true, &feeds["needs"].changes)
	told()
	x.credentialChanged(change)
	if diff := cmp.Diff(set("all", "needs"), told()); diff != "" {
		t.Errorf("the sessions that were told (-want +got):\n%s", diff)
	}
	feeds["needs"].need("shop.test", entry, false, &feeds["needs"].changes) // the agent has forgotten the host
	told()
	x.credentialChanged(change)
	if diff := cmp.Diff(set("all"), told()); diff != "" {
		t.Errorf("the sessions that were told after the host was forgotten (-want +got):\n%s", diff)
	}
	x.leave(feeds["all"])
	x.credentialChanged(change)
	if diff := cmp.Diff(set(), told()); diff != "" {
		t.Errorf("the sessions that were told after the other one left (-want +got):\n%s", diff)
	}
}
