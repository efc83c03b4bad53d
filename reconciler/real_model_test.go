package reconciler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/internal/test/testlaw"
	"github.com/caravanserai/cara/plan"
)

// deletionChecker sees every transaction of the real server, and checks each deletion against the law in the state before.
type deletionChecker struct {
	now func() time.Time

	mu     sync.Mutex
	seen   *fakecluster.Cluster
	crimes []string
}

func (w *deletionChecker) saw(changes []loop.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.seen.Update(func(tx *fakecluster.Tx) error { // cannot fail: it only copies
		for _, c := range changes {
			if stone, ok := c.New.(*carav1.Tombstone); ok {
				w.judge(tx, stone)
			}
		}
		for _, c := range changes {
			if c.New == nil {
				tx.Delete(api.Kind(c.Old), api.Meta(c.Old).Name)
				continue
			}
			tx.Put(proto.Clone(c.New)) // the cluster writes into what it is given
		}
		return nil
	})
}

// judge checks one project that was just deleted.
func (w *deletionChecker) judge(tx *fakecluster.Tx, stone *carav1.Tombstone) {
	name := stone.Metadata.Name
	p := fakecluster.Get[*carav1.Project](tx, name)
	if p == nil || p.Metadata.Uid != stone.ProjectUid {
		return // a picture after a restart: it went before
	}
	crime := func(format string, args ...any) { w.crimes = append(w.crimes, fmt.Sprintf(format, args...)) }
	switch stone.Reason {
	case api.ReasonPruned:
		req := &carav1.DeleteProjectRequest{Name: name, Uid: stone.ProjectUid, Owner: stone.Owner, Reason: stone.Reason}
		if why := forbidden(tx, p, req, w.now()); why != "" {
			crime("%s", why)
		}
	case api.ReasonExpired:
		if at := p.Status.ExpireAt; at == nil || at.AsTime().After(w.now()) {
			crime("%s expired at %v, its end is %v", name, w.now(), at.AsTime())
		}
	case api.ReasonSourceDeleted:
		src := fakecluster.Get[*carav1.Source](tx, strings.TrimPrefix(p.Metadata.Owner, "source/"))
		if src.GetMetadata().GetDeletionTimestamp() == nil || src.Spec.OnDelete != api.OnDeleteDelete || declarer(tx, src.Metadata.Name, name, w.now()) != "" {
			crime("%s went with its source, which was not deleted with its projects, or while another declares it", name)
		}
	case "Deleted":
	default:
		crime("%s went for no reason: %q", name, stone.Reason)
	}
}

// realHistory plays one random history on the real server.
type realHistory struct {
	*liveServer
	rand *rand.Rand
	revs int
	log  []string
}

func (h *realHistory) name() string { return fmt.Sprintf("p%02d", h.rand.IntN(modelProjects)) }

func (h *realHistory) one(of ...string) string { return of[h.rand.IntN(len(of))] }

// declare makes a source declare a random set.
func (h *realHistory) declare(source string) {
	h.revs++
	keep := []int{9, 9, 7, 3, 0}[h.rand.IntN(5)]
	broken, holds := h.rand.IntN(5) == 0, h.rand.IntN(2) == 0
	var all []*carav1.Claim
	for i := range modelProjects {
		if h.rand.IntN(10) >= keep {
			continue
		}
		name := fmt.Sprintf("p%02d", i)
		changes := []func(*carav1.Claim){testlaw.From(source, "", source+"/"+name+".yaml")}
		if h.rand.IntN(6) == 0 {
			changes = append(changes, testlaw.Expiring(h.now().Add(time.Duration(h.rand.IntN(900)-60)*time.Second)))
		}
		if broken && holds && h.rand.IntN(4) == 0 {
			changes = append(changes, testlaw.Held("bad file"))
		}
		all = append(all, testlaw.Claim(name, fmt.Sprintf("a:%d", h.rand.IntN(3)), changes...))
	}
	head := func(*carav1.Snapshot) {}
	if broken {
		head = badFile
	}
	h.publish(source, fmt.Sprintf("revision-%04d", h.revs), head, all...)
}

// terms are those of a random override.
func (h *realHistory) terms() *carav1.OverrideTerms {
	terms := &carav1.OverrideTerms{Reason: "because"}
	switch h.rand.IntN(3) {
	case 0:
		terms.For = durationpb.New(time.Duration(1+h.rand.IntN(600)) * time.Second)
	case 1:
		terms.UntilNextChange = true
	}
	return terms
}

// steps are the possible steps, by name. Requests that the server rejects have no effect.
func (h *realHistory) steps() map[string]func() {
	ctx, source, name := h.t.Context(), h.one("platform", "team"), h.name()
	return map[string]func(){
		"1 push":  func() { h.declare(source) },
		"2 push":  func() { h.declare(source) },
		"3 push":  func() { h.declare(source) },
		"by hand": func() { _ = h.byHand(testlaw.Manifest(name, "hand:1"), nil) },
		"override": func() {
			if image, terms := fmt.Sprintf("hand:%d", h.rand.IntN(3)), h.terms(); h.project(name) != nil {
				_ = h.byHand(testlaw.Manifest(name, image), terms)
			}
		},
		"delete": func() {
			_, _ = h.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: name, Override: h.terms()})
		},
		"clear": func() {
			_, _ = h.projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Clear: true})
		},
		"extend": func() {
			_, _ = h.projects.ExtendProject(ctx, &carav1.ExtendProjectRequest{Name: name, Reason: "demo", Until: timestamppb.New(h.now().Add(time.Duration(h.rand.IntN(1800)) * time.Second))})
		},
		"adopt": func() {
			_, _ = h.projects.AdoptProject(ctx, &carav1.AdoptProjectRequest{Name: name, Source: source})
		},
		"release": func() { _, _ = h.projects.ReleaseProject(ctx, &carav1.ReleaseProjectRequest{Name: name}) },
		"rollback": func() {
			_, _ = h.projects.RollbackProject(ctx, &carav1.RollbackProjectRequest{Name: name, To: "1", Terms: h.terms()})
		},
		"drift": func() {
			if p := h.project(name); p.GetMetadata().GetOwner() == "source/platform" {
				_, _ = h.rogue.Apply(ctx, &carav1.ApplyRequest{Source: "platform", Objects: []*carav1.Object{api.Wrap(testlaw.Manifest(name, "evil:1"))}})
			}
		},
		"suspend": func() { _, _ = h.sources.SuspendSource(ctx, &carav1.GetRequest{Name: source}) },
		"resume":  func() { _, _ = h.sources.ResumeSource(ctx, &carav1.GetRequest{Name: source}) },
		"confirm": func() {
			if rev := h.source(source).GetStatus().GetSnapshot().GetRevision(); rev != "" {
				_, _ = h.sources.ConfirmSource(ctx, &carav1.ConfirmSourceRequest{Name: source, Revision: rev})
			}
		},
		"unreachable": func() { h.fails(source, h.one("", "Unreachable")) },
		"recreate":    func() { h.recreate(source) },
		"wait":        func() { h.pass(time.Duration(h.rand.IntN(900)) * time.Second) },
		"clock":       func() { h.step(time.Duration(h.rand.IntN(1200)-600) * time.Second) },
		"restart":     func() { h.restart() },
	}
}

// recreate deletes a source, sometimes with its projects, and creates it again.
func (h *realHistory) recreate(source string) {
	if h.rand.IntN(3) == 0 {
		h.makeSource(source, func(s *carav1.SourceSpec) { s.OnDelete = api.OnDeleteDelete })
	}
	_, err := h.sources.DeleteSource(h.t.Context(), &carav1.DeleteRequest{Name: source})
	h.must(err)
	for range 20 {
		h.settle()
		if h.source(source) == nil {
			break
		}
		// It waits until the other source has taken over what both declare, including projects in a bad file there.
		other := map[string]string{"platform": "team", "team": "platform"}[source]
		_, _ = h.sources.ResumeSource(h.t.Context(), &carav1.GetRequest{Name: other})
		h.settle() // what is declared while a deletion is on its way to the server is more than the gate can know
		h.publish(other, "mended", nil)
		h.pass(time.Minute)
	}
	if h.source(source) != nil {
		h.t.Errorf("source %s does not go: %v", source, h.source(source))
		return
	}
	h.makeSource(source)
}

// calm ends all faults, overrides and suspensions, and lets both sources declare a last, complete set.
func (h *realHistory) calm() map[string][]*carav1.Claim {
	ctx, declared := h.t.Context(), map[string][]*carav1.Claim{}
	for i := range modelProjects {
		_, _ = h.projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: fmt.Sprintf("p%02d", i), Clear: true}) // most have none
	}
	for _, source := range []string{"platform", "team"} {
		h.makeSource(source, func(s *carav1.SourceSpec) { s.AllowEmpty = true })
		h.fails(source, "")
		for i := range modelProjects {
			if h.rand.IntN(2) == 0 {
				name := fmt.Sprintf("p%02d", i)
				declared[source] = append(declared[source], testlaw.Claim(name, "final-"+source+":1", testlaw.From(source, "", name+".yaml")))
			}
		}
		h.publish(source, "final-"+source, nil, declared[source]...)
		h.settle()
		_, err := h.sources.ConfirmSource(ctx, &carav1.ConfirmSourceRequest{Name: source, Revision: "final-" + source})
		h.must(err)
		h.settle()
	}
	h.pass(2 * time.Hour) // what people made expires too
	return declared
}

// judge compares the cluster with the declared projects, after all faults have ended.
func (h *realHistory) judge(declared map[string][]*carav1.Claim) {
	image := map[string]map[string]string{} // by project, then owner
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
		case p == nil, owner == "user/ada", owner == "" && len(image[name]) == 0:
		case image[name][owner] == "":
			h.t.Errorf("%s belongs to %q; it is declared by %v", name, owner, image[name])
		case image[name][owner] != p.Spec.Services[0].Image:
			h.t.Errorf("%s is %s, its owner %s says %s", name, p.Spec.Services[0].Image, owner, image[name][owner])
		}
	}
	h.wantQuiet()
	if h.t.Failed() {
		for _, source := range []string{"platform", "team"} {
			h.t.Logf("%s: %v", source, h.source(source))
		}
		for _, c := range loop.All[*carav1.Claim](h.view) {
			h.t.Logf("%s %v: %v", c.Metadata.Name, c.Spec.Present, c.Status)
		}
	}
}

// playReal runs one history from its seed.
func playReal(t *testing.T, seed uint64, decide func(plan.Input) plan.Plan, judged bool) (crimes []string) {
	synctest.Test(t, func(t *testing.T) {
		r := &liveServer{t: t, fs: vfs.NewMem(), decide: decide}
		w := &deletionChecker{now: r.now, seen: fakecluster.New()}
		r.watch = w.saw
		h := &realHistory{liveServer: r, rand: rand.New(rand.NewPCG(seed, 2))}
		r.start()
		r.makeSource("platform")
		r.makeSource("team")
		for range 60 {
			steps := h.steps()
			name := h.one(sortedKeys(steps)...)
			h.log = append(h.log, name)
			steps[name]()
			r.settle()
			w.mu.Lock()
			crimes = w.crimes
			w.mu.Unlock()
			if len(crimes) > 0 || t.Failed() {
				break
			}
		}
		if judged && len(crimes) == 0 && !t.Failed() {
			h.judge(h.calm())
		}
		r.stop()
		crimes = w.crimes
		if t.Failed() || judged && len(crimes) > 0 {
			t.Logf("seed %d; steps: %s", seed, strings.Join(h.log, ", "))
		}
	})
	return crimes
}

// TestModelOfTheRealServer plays random histories on the real server, store and collector, as people and git servers
// would make them. A witness sees every transaction.
func TestModelOfTheRealServer(t *testing.T) {
	playMany(t, *realRuns, func(t *testing.T, seed uint64) {
		for _, crime := range playReal(t, seed, plan.Diff, true) {
			t.Error(crime)
		}
		if t.Failed() {
			t.Logf("replay with -run '%s$' -seed %d", topOf(t), seed)
		}
	})
}
