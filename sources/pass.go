package sources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/manifest/sops"
)

// do processes a source: it decides whether a pass is due, runs and reports it, and returns when to process the source
// again.
func (s *Sources) do(ctx context.Context, name string) (time.Duration, error) {
	st := s.state(name)
	if !s.mirror.Reached(st.published, name) {
		return 0, nil
	}
	src, ok := loop.Get[*carav1.Source](s.mirror, name)
	if !ok || src.Metadata.DeletionTimestamp != nil || src.GetSpec().GetSuspend() {
		s.forget(name)
		return 0, nil
	}
	st = s.sameSource(st, src)
	now := s.cfg.Now()
	if st.generation != src.Metadata.Generation {
		st.failures, st.barred = 0, time.Time{}
	}
	asked := st.generation != src.Metadata.Generation || st.asked(src) != ""
	if !asked && now.Before(st.barred) {
		return st.barred.Sub(now), nil // hints wait too
	}
	lane := laneOf(src, st.failures)
	if !s.lanes.enter(lane, name) {
		return time.Second, nil // or earlier, when a slot is free
	}
	defer func() {
		if next := s.lanes.leave(lane); next != "" {
			s.queue.Add(next)
		}
	}()
	hinted, soon := st.hints.due(now)
	force := asked || hinted
	if left := st.due.Sub(now); !force && left > 0 {
		return min(cmp.Or(soon, left), left), nil
	}
	return s.run(ctx, &pass{Sources: s, st: st, src: src, force: force, began: now})
}

// run executes a pass, and keeps it due if the API failed.
func (s *Sources) run(ctx context.Context, p *pass) (time.Duration, error) {
	again, err := p.run(ctx)
	if err != nil {
		if p.force {
			p.st.hints.soon()
		}
		return 0, fmt.Errorf("source %s: %w", p.src.Metadata.Name, err)
	}
	p.st.generation = p.src.Metadata.Generation
	return again, nil
}

// sameSource returns st, or a new state if st belongs to an earlier source of the same name.
func (s *Sources) sameSource(st *state, src *carav1.Source) *state {
	if st.uid != "" && st.uid != src.Metadata.Uid {
		s.forget(src.Metadata.Name)
		st = s.state(src.Metadata.Name)
	}
	st.uid = src.Metadata.Uid
	return st
}

// pass is one pass over one source.
type pass struct {
	*Sources
	st    *state
	src   *carav1.Source
	force bool
	began time.Time

	revision string     // as probed
	keys     *sops.Keys // nil without spec.decryption
	keysID   string     // hash of the keys; empty without spec.decryption
}

// run executes the pass. It returns only errors of the API, and then the pass does not count. Errors of the source are
// reported to the API.
func (p *pass) run(ctx context.Context) (time.Duration, error) {
	head, err := p.read(ctx)
	for errors.Is(err, ErrMoved) && !p.live() && p.st.moves < mostMoves && ctx.Err() == nil {
		// A push came between probe and fetch: read the new revision immediately.
		p.st.moves++
		p.force = true
		head, err = p.read(ctx)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var bad *Error
	switch {
	case err == nil:
		return p.report(ctx, head, nil)
	case errors.Is(err, errDoubt):
		p.st.hints.soon() // the second look does not wait for the interval
		return secondLook, nil
	case errors.Is(err, ErrMoved) && p.st.moves < mostMoves:
		p.st.moves++
		p.st.hints.soon()
		return secondLook / 2, nil
	case errors.Is(err, ErrMoved):
		return p.report(ctx, nil, Retry(api.ReasonDirectoryUnavailable, "the source changes faster than it can be read; it will be tried again"))
	case errors.As(err, &bad):
		return p.report(ctx, nil, bad)
	}
	return 0, err
}

// mostMoves is how often in a row a source may change while it is read before that is reported.
const mostMoves = 10

func (p *pass) live() bool {
	_, live := p.st.driver.(Live)
	return live
}

// errDoubt means that the result must be confirmed by a second look.
var errDoubt = errors.New("looked at twice")

// read updates the claims to match the source, and returns the resulting head.
func (p *pass) read(ctx context.Context) (*carav1.Snapshot, error) {
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	maxAge := interval(p.src, p.st.driver) / 2
	if p.force || p.st.failures > 0 {
		maxAge = 0
	}
	var err error
	if p.revision, err = safely(func() (string, error) { return p.st.driver.Probe(ctx, maxAge) }); err != nil {
		return nil, readError(ctx, err, "probe the source")
	}
	head := p.src.GetStatus().GetSnapshot()
	if p.known(head, p.revision) {
		return p.again(ctx, head)
	}
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if next, err := p.step(ctx, head); next != nil || err != nil {
		return next, err
	}
	tree, err := safely(func() (*Tree, error) { return p.st.driver.Tree(ctx, p.revision) })
	if err != nil {
		return nil, readError(ctx, err, "read the tree at %.12s", p.revision)
	}
	if tree.Close != nil {
		defer tree.Close()
	}
	if p.revision = tree.Revision; p.known(head, tree.Revision) {
		return p.again(ctx, head)
	}
	return p.take(ctx, tree, head)
}

// known reports whether head is already the result of reading this revision.
func (p *pass) known(head *carav1.Snapshot, revision string) bool {
	if p.keysID != p.st.keys || p.keys != nil && head.GetErrorCount() > 0 && p.st.asked(p.src) != "" {
		return false // other keys may decrypt more, and the server may accept a Secret now
	}
	return head != nil && head.Revision == revision && head.SpecHash == specHash(p.src.Spec)
}

// again ends a pass that found nothing new.
func (p *pass) again(ctx context.Context, head *carav1.Snapshot) (*carav1.Snapshot, error) {
	p.st.doubt, p.st.moves = "", 0
	if token := p.st.asked(p.src); token != "" {
		return p.answer(ctx, head, token)
	}
	return head, nil
}

// remind fills the memory after a restart. What was parsed with other rules is forgotten.
func (p *pass) remind(head *carav1.Snapshot, claims []*carav1.Claim) {
	rules := parsingRules(p.src.GetSpec()) + p.keysID
	switch {
	case p.st.memory != nil && p.st.rules == rules:
	case p.st.memory == nil && p.src.GetSpec().GetFormat() != api.FormatCompose && (rules == "" || head.GetSpecHash() == specHash(p.src.GetSpec())):
		p.st.memory = recall(head, claims)
	default:
		p.st.memory = memory{}
	}
	p.st.rules = rules
}

// take publishes the projects that a tree declares.
func (p *pass) take(ctx context.Context, tree *Tree, head *carav1.Snapshot) (*carav1.Snapshot, error) {
	claims := loop.AllPrefix[*carav1.Claim](p.mirror, p.src.Metadata.Name+"/")
	p.remind(head, claims)
	reader := &reader{src: p.src, tree: tree, keys: p.keys, memory: p.st.memory, files: newShelf(p.st, p.src, tree)}
	reading, err := reader.parse(ctx, claims)
	if err != nil {
		return nil, err
	}
	if tree.Follow != nil {
		tree.Revision = tree.Follow(reading.needs())
		reading.Revision, p.revision = tree.Revision, tree.Revision
		if p.known(head, tree.Revision) && p.st.asked(p.src) == "" {
			p.st.memory = remember(reading.Files)
			return p.again(ctx, head)
		}
	}
	change := Delta(*reading, claims)
	if len(change.Absent) > 0 && tree.Hidden != nil {
		if reading.Hidden, err = safely(func() ([]File, error) { return tree.Hidden(ctx) }); err != nil {
			return nil, readError(ctx, err, "look for hidden files at %.12s", tree.Revision)
		}
		change = Delta(*reading, claims)
	}
	if most := maxProjects(p.src); change.Projects > most {
		return nil, Human(api.ReasonTooLarge, "%d projects are declared and spec.maxProjects is %d: raise it, or narrow the source with spec.path or spec.include",
			change.Projects, most)
	}
	if p.doubtful(tree, change, head) {
		return nil, errDoubt
	}
	next := newHead(tree, change, head)
	if err := reader.files.store(ctx, p.files, change); err != nil {
		return nil, err
	}
	if err := p.publishRead(ctx, next, change); err != nil {
		return nil, err
	}
	p.st.memory, p.st.settled = remember(reading.Files), p.settle(tree, reading, change, next)
	return next, nil
}

// publishRead publishes what was read, and answers the request that asked for it.
func (p *pass) publishRead(ctx context.Context, next *carav1.Snapshot, change Change) error {
	next.SpecHash, next.Token = specHash(p.src.Spec), p.st.asked(p.src)
	p.st.keys, p.st.settled = "", nil // after an error the snapshot may be stored, but not all that follows from it
	if err := p.publish(ctx, next, change); err != nil {
		return err
	}
	p.st.moves, p.st.doubt, p.st.keys = 0, "", p.keysID
	p.cfg.Logger.Info("snapshot published", "source", p.src.Metadata.Name, "rev", next.Revision, "files", next.Files,
		"changed", len(change.Upserts), "absent", len(change.Absent), "errors", len(change.Problems))
	return nil
}

// maxProjects returns the limit of a source's projects.
func maxProjects(src *carav1.Source) int {
	return cmp.Or(int(src.GetSpec().GetMaxProjects()), api.DefaultMaxProjects)
}

// doubtful reports whether a live source needs a second look: a removal or a new error may come from a half-written file. If
// the source keeps changing, errors are accepted after a while, since an error prunes nothing.
func (p *pass) doubtful(tree *Tree, change Change, head *carav1.Snapshot) bool {
	if !p.live() || len(change.Absent) == 0 && !newProblems(change, head) {
		return false
	}
	if p.st.doubt == tree.Revision {
		return p.began.Sub(p.st.doubtAt) < secondLook
	}
	if p.st.doubt == "" {
		p.st.doubtSince = p.began
	}
	p.st.doubt, p.st.doubtAt = tree.Revision, p.began
	return len(change.Absent) > 0 || p.began.Sub(p.st.doubtSince) < patience
}

func newProblems(change Change, head *carav1.Snapshot) bool {
	told := map[string]bool{}
	for _, f := range head.GetFileErrors() {
		told[Place(f)+f.Message] = true
	}
	return slices.ContainsFunc(change.Problems, func(f *carav1.FileProblem) bool { return !told[Place(f)+f.Message] })
}
