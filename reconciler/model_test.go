package reconciler

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/internal/test/testlaw"
	"github.com/caravanserai/cara/plan"
)

var (
	modelSeed = flag.Uint64("seed", 0, "replay one history of TestModel")
	modelRuns = flag.Int("histories", 120, "how many random histories TestModel plays")
	realRuns  = flag.Int("real-histories", 30, "how many random histories TestModelOfTheRealServer plays")
)

// forbidden checks the law's prune row again, against the store in the transaction that deletes. It returns an empty string
// for a lawful deletion. It does not use plans.
func forbidden(tx *fakecluster.Tx, p *carav1.Project, req *carav1.DeleteProjectRequest, now time.Time) string {
	if req.Reason != api.ReasonPruned {
		return ""
	}
	name := p.Metadata.Name
	source := strings.TrimPrefix(req.Owner, "source/")
	src := fakecluster.Get[*carav1.Source](tx, source)
	mine := fakecluster.Get[*carav1.Claim](tx, source+"/"+name)
	crime := func(why string) string { return fmt.Sprintf("%s pruned %s: %s", source, name, why) }
	switch {
	case src == nil || mine == nil:
		return crime("it is in no inventory of a source that exists")
	case p.Metadata.Owner != "source/"+source || req.Uid != p.Metadata.Uid:
		return crime("owner or uid were not held against the store")
	case mine.Spec.Present:
		return crime("its manifest is there")
	case mine.Spec.SourceUid != src.Metadata.Uid:
		return crime("the inventory is an earlier source's")
	case mine.Status.GetProjectUid() != p.Metadata.Uid:
		return crime("the stored inventory does not name its uid")
	case src.Spec.Suspend:
		return crime("the source is suspended")
	case !src.Status.Snapshot.Complete || src.Status.Snapshot.ErrorCount > 0:
		return crime("the snapshot did not load whole")
	case api.IsTrue(src.Status.Conditions, api.CondFetchFailed):
		return crime("the source cannot be read")
	}
	if overrules(tx, name, now) {
		return crime("a person overrode git")
	}
	if other := declarer(tx, source, name, now); other != "" {
		return crime(other + " declares it")
	}
	declared, owned, gone := 0, 0, 0
	for _, c := range fakecluster.AllIn[*carav1.Claim](tx) {
		if c.Spec.Source != source {
			continue
		}
		if c.Spec.Present {
			declared++
		}
		q := fakecluster.Get[*carav1.Project](tx, c.Spec.Project.Metadata.Name)
		if q.GetMetadata().GetOwner() != req.Owner || api.GoingAway(q) {
			continue
		}
		owned++
		if !c.Spec.Present && declarer(tx, source, q.Metadata.Name, now) == "" && !overrules(tx, q.Metadata.Name, now) {
			gone++
		}
	}
	if declared == 0 && !src.Spec.AllowEmpty {
		return crime("the source declares nothing")
	}
	// Projects pruned earlier in the same pass are already gone, so the remaining ones are a lower bound of the set.
	if gone > max(3, owned*30/100) && src.Status.ConfirmedRevision != src.Status.Snapshot.Revision {
		return crime(fmt.Sprintf("%d of %d go at once", gone, owned))
	}
	return ""
}

// overrules reports whether an override keeps git from deleting a project. One that lasts until git's next change does so while
// a source declares what the override was made against.
func overrules(tx *fakecluster.Tx, project string, now time.Time) bool {
	o := fakecluster.Get[*carav1.Override](tx, project)
	if o == nil || o.Scope == "Expiry" || plan.EndedByTime(o, now) {
		return false
	}
	return o.UntilHash == "" || slices.ContainsFunc(fakecluster.AllIn[*carav1.Claim](tx), func(c *carav1.Claim) bool {
		return c.Spec.Project.Metadata.Name == project && c.Spec.Present && c.Spec.Hash == o.UntilHash
	})
}

// declarer returns another source that is not being deleted and would take over a project.
func declarer(tx *fakecluster.Tx, source, project string, now time.Time) string {
	for _, other := range fakecluster.AllIn[*carav1.Source](tx) {
		name := other.Metadata.Name
		c := fakecluster.Get[*carav1.Claim](tx, name+"/"+project)
		if at := c.GetSpec().GetProject().GetSpec().GetExpireAt(); at != nil && !at.AsTime().After(now) {
			continue // it has expired there: nobody would take it over
		}
		if name != source && other.Metadata.DeletionTimestamp == nil && c.GetSpec().GetPresent() && c.Spec.SourceUid == other.Metadata.Uid {
			return name
		}
	}
	return ""
}

// history plays one random history.
type history struct {
	*cluster
	rand *rand.Rand
	revs int
	log  []string
}

const modelProjects = 12

func (h *history) name() string { return fmt.Sprintf("p%02d", h.rand.IntN(modelProjects)) }

func (h *history) one(of ...string) string { return of[h.rand.IntN(len(of))] }

// push makes a source declare a random set: mostly many projects, sometimes few, none or a broken file.
func (h *history) push(source string) {
	h.revs++
	keep := []int{9, 9, 7, 3, 0}[h.rand.IntN(5)]
	var all []*carav1.Claim
	broken, holds := h.rand.IntN(5) == 0, h.rand.IntN(2) == 0
	for i := range modelProjects {
		if h.rand.IntN(10) >= keep {
			continue
		}
		name := fmt.Sprintf("p%02d", i)
		c := testlaw.Claim(name, fmt.Sprintf("a:%d", h.rand.IntN(3)), testlaw.From(source, h.source(source).Metadata.Uid, source+"/"+name+".yaml"))
		if h.rand.IntN(8) == 0 {
			at := h.now().Add(time.Duration(h.rand.IntN(600)-60) * time.Second)
			c = testlaw.Claim(name, "a:1", testlaw.From(source, h.source(source).Metadata.Uid, name+".yaml"), testlaw.Expiring(at))
		}
		if broken && holds && h.rand.IntN(4) == 0 {
			c.Spec.Held = "bad file"
		}
		all = append(all, c)
	}
	h.broken = broken
	h.publish(h.t, source, fmt.Sprintf("revision-%04d", h.revs), all...)
}

func (h *history) edit(source string, f func(*carav1.Source)) {
	s := h.source(source)
	f(s)
	h.Put(s)
}

// editProject changes a project that is not being deleted.
func (h *history) editProject(f func(*carav1.Project)) {
	if p := h.project(h.name()); p != nil && !api.GoingAway(p) {
		f(p)
		p.Metadata.Generation++
		h.Put(p)
	}
}

// steps are what may happen, by name.
func (h *history) steps() map[string]func() {
	source := h.one("platform", "team")
	return map[string]func(){
		"1 push":       func() { h.push(source) },
		"2 push":       func() { h.push(source) },
		"drift":        func() { h.editProject(func(p *carav1.Project) { p.Spec.Services[0].Image = "evil:1" }) },
		"orphan":       func() { h.editProject(func(p *carav1.Project) { p.Metadata.Owner = "" }) },
		"take by hand": func() { h.editProject(func(p *carav1.Project) { p.Metadata.Owner = "user/ada" }) },
		"make by hand": func() {
			if name := h.name(); h.project(name) == nil {
				h.revs++
				p := testlaw.Project(name, "hand:1", "user/ada")
				p.Metadata.Uid = fmt.Sprintf("hand-%d", h.revs)
				h.Put(p)
			}
		},
		"delete":   func() { h.Delete(api.KindProject, h.name()) },
		"override": func() { h.override() },
		"clear":    func() { h.Delete(api.KindOverride, h.name()) },
		"expire":   func() { h.expire() },
		"finish":   func() { h.finish() },
		"wait":     func() { h.pass(time.Duration(h.rand.IntN(400)) * time.Second) },
		"suspend":  func() { h.edit(source, func(s *carav1.Source) { s.Spec.Suspend = !s.Spec.Suspend }) },
		"confirm": func() {
			h.edit(source, func(s *carav1.Source) { s.Status.ConfirmedRevision = s.Status.GetSnapshot().GetRevision() })
		},
		"unreachable": func() { h.reach(source, h.one(api.StatusTrue, api.StatusFalse)) },
		"outage": func() {
			h.Refuse(h.one("Apply", "DeleteProject", "UpdateClaims", "UpdateSourceStatus"), api.Unavailable("away"))
		},
		"repair":  h.repair,
		"restart": func() { h.stop(); h.start() },
		"clock":   func() { h.step(time.Duration(h.rand.IntN(1200)-600) * time.Second) },
		"adopt":   func() { h.adopt(source) },
		"slow":    func() { h.setSlow(!h.slow) },
	}
}

func (h *history) setSlow(slow bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = slow
}

func (h *history) override() {
	o := &carav1.Override{Metadata: &carav1.ObjectMeta{Name: h.name()}, Scope: h.one(api.OverrideSpec, api.OverrideDeletion), Actor: "user/ada", Reason: "because"}
	switch h.rand.IntN(3) {
	case 0:
		o.Until = timestamppb.New(h.now().Add(time.Duration(h.rand.IntN(300)) * time.Second))
	case 1:
		if c := fakecluster.Read[*carav1.Claim](h.Cluster, h.one("platform", "team")+"/"+o.Metadata.Name); c != nil {
			o.UntilHash = c.Spec.Hash
		}
	}
	h.Put(o)
}

// adopt gives a source a project that it declares and no source owns.
func (h *history) adopt(source string) {
	h.editProject(func(p *carav1.Project) {
		c := fakecluster.Read[*carav1.Claim](h.Cluster, source+"/"+p.Metadata.Name)
		if c.GetSpec().GetPresent() && !strings.HasPrefix(p.Metadata.Owner, "source/") {
			p.Metadata.Owner = "source/" + source
		}
	})
}

// expire ends what has expired, as the garbage collector does.
func (h *history) expire() {
	for _, p := range fakecluster.All[*carav1.Project](h.Cluster) {
		if at := p.Spec.ExpireAt; at != nil && !at.AsTime().After(h.now()) {
			h.finish(p.Metadata.Name)
		}
	}
}

func (h *history) reach(source, failed string) {
	h.edit(source, func(s *carav1.Source) {
		s.Status.Conditions, _ = api.SetCondition(s.Status.Conditions, &carav1.Condition{
			Type: api.CondFetchFailed, Status: failed, Reason: "Unreachable", Message: "no route",
		}, time.Now())
	})
}

func (h *history) repair() {
	for _, method := range []string{"Apply", "DeleteProject", "UpdateClaims", "UpdateSourceStatus"} {
		h.Refuse(method, nil)
	}
}

// calm ends all faults, overrides and suspensions, and lets both sources declare a last, complete set.
func (h *history) calm() map[string][]*carav1.Claim {
	h.repair()
	h.setSlow(false)
	h.broken = false
	declared := map[string][]*carav1.Claim{}
	for i := range modelProjects {
		h.Delete(api.KindOverride, fmt.Sprintf("p%02d", i))
	}
	for _, source := range []string{"platform", "team"} {
		h.reach(source, api.StatusFalse)
		h.edit(source, func(s *carav1.Source) { s.Spec.Suspend, s.Spec.AllowEmpty = false, true })
		h.settle()
		for i := range modelProjects {
			if h.rand.IntN(2) == 0 {
				name := fmt.Sprintf("p%02d", i)
				declared[source] = append(declared[source], testlaw.Claim(name, "final-"+source+":1", testlaw.From(source, h.source(source).Metadata.Uid, name+".yaml")))
			}
		}
		h.publish(h.t, source, "final-"+source, declared[source]...)
		h.edit(source, func(s *carav1.Source) { s.Status.ConfirmedRevision = s.Status.Snapshot.Revision })
		h.settle() // what is declared while a deletion is on its way to the server is more than the gate can know
	}
	for range 3 {
		h.pass(6 * time.Minute)
		h.finish()
	}
	h.pass(6 * time.Minute)
	return declared
}

// judge compares the cluster with the declared projects, after all faults have ended.
func (h *history) judge(declared map[string][]*carav1.Claim) {
	image := map[string]map[string]string{} // by project, then source
	for source, claims := range declared {
		for _, c := range claims {
			name := c.Spec.Project.Metadata.Name
			if image[name] == nil {
				image[name] = map[string]string{}
			}
			image[name]["source/"+source] = c.Spec.Project.Spec.Services[0].Image
		}
	}
	for i := range modelProjects {
		name := fmt.Sprintf("p%02d", i)
		p := h.project(name)
		switch owner := p.GetMetadata().GetOwner(); {
		case p == nil && len(image[name]) > 0:
			h.t.Errorf("%s is declared by %v and is not there", name, image[name])
		case p == nil, owner == "user/ada":
		case owner == "" && len(image[name]) == 0:
		case image[name][owner] == "":
			h.t.Errorf("%s belongs to %q; it is declared by %v", name, owner, image[name])
		case image[name][owner] != p.Spec.Services[0].Image:
			h.t.Errorf("%s is %s, its owner %s says %s", name, p.Spec.Services[0].Image, owner, image[name][owner])
		}
	}
	h.wantQuiet()
}

// play runs one history from its seed.
func play(t *testing.T, seed uint64, decide func(plan.Input) plan.Plan, judged bool) (crimes []string) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{server: newServer(), t: t, decide: decide}
		h := &history{cluster: c, rand: rand.New(rand.NewPCG(seed, 1))}
		c.Put(newSource("platform", "s1"), newSource("team", "s2"))
		c.start()
		for range 60 {
			steps := h.steps()
			name := h.one(sortedKeys(steps)...)
			h.log = append(h.log, name)
			steps[name]()
			c.settle()
			if len(c.accused()) > 0 {
				break
			}
		}
		if len(c.accused()) == 0 && judged {
			h.judge(h.calm())
		}
		c.stop()
		crimes = c.accused()
		if t.Failed() {
			t.Logf("seed %d, replay with -run 'TestModel$' -seed %d; steps: %s", seed, seed, strings.Join(h.log, ", "))
		}
	})
	return crimes
}

// TestModel plays random histories: pushes and force-pushes (both are just new snapshots), bad files, outages, moves between
// sources, manual changes, overrides, expiries, clock steps and restarts. Nothing that the law protects may be deleted. When
// faults end, the cluster matches git, and another look writes nothing.
func TestModel(t *testing.T) {
	playMany(t, *modelRuns, func(t *testing.T, seed uint64) {
		for _, crime := range play(t, seed, plan.Diff, true) {
			t.Errorf("%s; replay with -run '%s$' -seed %d", crime, topOf(t), seed)
		}
	})
}

// playMany plays so many histories, or the one whose seed is given. With -short, as under the race detector, a third of them.
func playMany(t *testing.T, n int, play func(t *testing.T, seed uint64)) {
	if testing.Short() {
		n /= 3
	}
	if *modelSeed != 0 {
		play(t, *modelSeed)
		return
	}
	start := rand.Uint64N(1 << 40)
	for i := range n {
		seed := start + uint64(i) + 1
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { play(t, seed) }) {
			return
		}
	}
}

func topOf(t *testing.T) string {
	top, _, _ := strings.Cut(t.Name(), "/")
	return top
}
