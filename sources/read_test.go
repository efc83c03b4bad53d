package sources_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// gate is a source in memory whose Tree does what a test says.
type gate struct {
	*memory
	mu   sync.Mutex
	tree func(revision string) error
}

func (g *gate) Opener() sources.Opener { return g }

func (g *gate) Open(*carav1.SourceSpec, map[string][]byte) (sources.Driver, error) { return g, nil }

func (g *gate) Tree(ctx context.Context, revision string) (*sources.Tree, error) {
	g.mu.Lock()
	tree := g.tree
	g.mu.Unlock()
	if tree != nil {
		if err := tree(revision); err != nil {
			return nil, err
		}
	}
	return g.memory.Tree(ctx, revision)
}

func (g *gate) on(tree func(revision string) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tree = tree
}

// A request during a pass is answered by the next pass, and an earlier request by this one.
func TestEachRequestIsAnsweredByAPassThatBeganAfterIt(t *testing.T) {
	g := &gate{memory: &memory{}}
	reading, release := make(chan struct{}), make(chan struct{})
	var first sync.Once
	g.on(func(string) error {
		first.Do(func() {
			close(reading)
			<-release
		})
		return nil
	})
	w := sourcetest.New(t, g)
	w.Start()
	w.Create()
	<-reading
	w.Ask()
	token := w.Source().Status.RequestedToken
	close(release)
	w.Wait("an answer to the first request", func() bool { return w.Source().Status.GetSnapshot().GetToken() == token })
	if p := w.Server.Publishes(); len(p) != 2 || p[0].Head.Token != "" {
		t.Errorf("published %v: the pass that ran already answered a request that came later", p)
	}
	w.Ask()
	w.Ask()
	last := w.Source().Status.RequestedToken
	w.Wait("one answer for both", func() bool { return w.Source().Status.GetSnapshot().GetToken() == last })
}

// A push between probe and fetch is no error: the source is read again in the same pass.
func TestABranchThatMovedIsFetchedAgainAtOnce(t *testing.T) {
	g := &gate{memory: &memory{}}
	g.Write("a.yaml", sourcetest.Project("a", "web:1"))
	moves := 0
	g.on(func(revision string) error {
		if moves++; moves > 3 {
			return nil
		}
		g.Publish()
		return fmt.Errorf("fetch %s: %w", revision, sources.ErrMoved)
	})
	w := sourcetest.New(t, g)
	w.Start()
	w.Create()
	if p := w.Published(1); p.Head.Revision != "rev-000000003" {
		t.Errorf("head = %v", p.Head)
	}
	w.Looked()
	if c := api.FindCondition(w.Source().Status.Conditions, api.CondFetchFailed); c != nil || len(w.Server.Events()) != 0 {
		t.Errorf("condition %v, events %v", c, w.Server.Events())
	}
}

// A source that keeps changing is reported eventually.
func TestASourceThatNeverStandsStillIsReported(t *testing.T) {
	g := &gate{memory: &memory{}}
	g.on(func(revision string) error {
		g.Publish()
		return fmt.Errorf("fetch %s: %w", revision, sources.ErrMoved)
	})
	w := sourcetest.New(t, g)
	w.Start()
	w.Create()
	if reason, message := w.Condition(api.CondFetchFailed, api.StatusTrue); reason != api.ReasonDirectoryUnavailable {
		t.Errorf("%s: %s", reason, message)
	}
}

// The probe may find a tag where the tree finds the commit behind it: the commit counts, and it is read once.
func TestTheTreesRevisionCounts(t *testing.T) {
	m := &memory{}
	m.Write("a.yaml", sourcetest.Project("a", "web:1"))
	w := sourcetest.New(t, &peeling{m})
	w.Start()
	w.Create()
	if p := w.Published(1); p.Head.Revision != "peeled" || p.Upserts[0].Revision != "peeled" {
		t.Errorf("published %v", p)
	}
	w.Looked()
	w.Looked()
	if n := len(w.Server.Publishes()); n != 1 {
		t.Errorf("%d snapshots of one commit", n)
	}
}

type peeling struct{ *memory }

func (p *peeling) Opener() sources.Opener { return p }

func (p *peeling) Open(*carav1.SourceSpec, map[string][]byte) (sources.Driver, error) { return p, nil }

func (p *peeling) Tree(ctx context.Context, revision string) (*sources.Tree, error) {
	tree, err := p.memory.Tree(ctx, revision)
	if err == nil {
		tree.Revision = "peeled"
	}
	return tree, err
}
