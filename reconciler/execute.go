package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// Limits of one request, and of concurrent requests for one source.
const (
	batchObjects = 100
	batchBytes   = 1 << 20
	inFlight     = 4
)

// outcome is the result of executing a plan.
type outcome struct {
	results []result // one for each step, in order
	// err is why some steps were not done, if a retry may help.
	err error
	// began is when the first step began. Zero if there was nothing to do.
	began time.Time
	// removed is true if the source is gone.
	removed bool
}

// result is the result of one step.
type result struct {
	plan.Outcome
	// failed is true if the step was tried and not done.
	failed bool
	// retry is when to retry a rejected step.
	retry time.Time
}

// executor executes one plan.
type executor struct {
	*Reconciler
	in   plan.Input
	todo *plan.Plan

	mu   sync.Mutex // steps run in several goroutines; guards the fields below
	errs []error
	seen int64
	done *outcome
	mem  *sourceMemory
}

// execute runs the plan's steps in order. A failed step is recorded and does not block the others.
func (r *Reconciler) execute(ctx context.Context, in plan.Input, p *plan.Plan, m *sourceMemory) *outcome {
	e := &executor{Reconciler: r, in: in, todo: p, mem: m, done: &outcome{results: make([]result, len(p.Steps))}}
	for i, s := range p.Steps {
		e.done.results[i] = result{Outcome: s.Expected()}
		if s.Action.Applies() || s.Action == plan.Delete {
			e.done.began = in.Now
		}
		if s.Action == plan.Forget {
			delete(m.claims, s.Project)
		}
	}
	e.clearOverrides(ctx)
	for _, batch := range e.batches() {
		e.applyAll(ctx, batch)
	}
	e.deleteAll(ctx)
	if p.Remove {
		e.removeSource(ctx)
	}
	e.done.err = errors.Join(e.errs...)
	m.seen = max(m.seen, e.seen)
	return e.done
}

func (e *executor) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.errs = append(e.errs, err)
}

// clearOverrides removes the records of overrides that a git change ended, so that a later change back does not revive them.
// If a person renewed an override meanwhile, the server rejects the request, and the watch reports the new override.
func (e *executor) clearOverrides(ctx context.Context) {
	for _, name := range e.todo.Ended {
		_, err := e.projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Clear: true})
		if err != nil && !api.IsNotFound(err) && !api.IsConflict(err) {
			e.fail(fmt.Errorf("clear override of %s: %w", name, err))
		}
	}
}

// batches groups the steps that apply into requests. Requests of one group may run concurrently; the next group starts after
// them. Only hand-over requests may take projects from other sources.
func (e *executor) batches() (groups [][][]int) {
	var plain, handOver [][]int
	size := 0
	for i, s := range e.todo.Steps {
		if !s.Action.Applies() {
			break // applying steps come first in a plan
		}
		to := &plain
		if s.Action == plan.HandOver {
			to = &handOver
		}
		n := proto.Size(s.Row.Claim.Spec.Project)
		last := len(*to) - 1
		if last < 0 || len((*to)[last]) >= batchObjects || size+n > batchBytes {
			*to = append(*to, nil)
			last++
			size = 0
		}
		(*to)[last] = append((*to)[last], i)
		size += n
	}
	return slices.DeleteFunc([][][]int{plain, handOver}, func(g [][]int) bool { return len(g) == 0 })
}

func (e *executor) applyAll(ctx context.Context, batches [][]int) {
	inParallel(batches, func(batch []int) { e.applyBatch(ctx, batch) })
}

// inParallel calls work for each item, for some at the same time. Failures are recorded per step.
func inParallel[T any](items []T, work func(item T)) {
	var group errgroup.Group
	group.SetLimit(inFlight)
	for _, item := range items {
		group.Go(func() error { work(item); return nil })
	}
	_ = group.Wait() // work returns no error
}

// applyBatch sends some steps in one request. If the server rejects the whole request, applyBatch sends it again in halves,
// so that one project never blocks another.
func (e *executor) applyBatch(ctx context.Context, steps []int) {
	resp, err := e.apply.Apply(ctx, e.request(steps))
	if err == nil && len(resp.Results) != len(steps) {
		err = fmt.Errorf("%d results for %d objects", len(resp.Results), len(steps))
	}
	if err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		for i, step := range steps {
			e.took(step, resp.Results[i])
		}
		return
	}
	switch code := api.Code(err); {
	case code != codes.InvalidArgument && code != codes.ResourceExhausted:
		e.mu.Lock()
		defer e.mu.Unlock()
		e.errs = append(e.errs, fmt.Errorf("apply %d projects: %w", len(steps), err))
		for _, step := range steps {
			e.done.results[step].State, e.done.results[step].failed = "", true
		}
	case len(steps) > 1:
		e.applyBatch(ctx, steps[:len(steps)/2])
		e.applyBatch(ctx, steps[len(steps)/2:])
	default:
		e.mu.Lock()
		defer e.mu.Unlock()
		e.refuse(steps[0], api.ProblemOf(err))
	}
}

func (e *executor) request(steps []int) *carav1.ApplyRequest {
	req := &carav1.ApplyRequest{Source: e.todo.Source, Adopt: plan.AdoptPolicy(e.in.Source)}
	for _, i := range steps {
		s := &e.todo.Steps[i]
		claim := s.Row.Claim.Spec
		declared := claim.Project.GetMetadata()
		req.Objects = append(req.Objects, api.Wrap(&carav1.Project{
			ApiVersion: api.APIVersion, Kind: api.KindProject,
			Metadata: &carav1.ObjectMeta{
				Name: s.Project, Labels: declared.GetLabels(), Annotations: declared.GetAnnotations(),
				Origin: &carav1.Origin{
					Source: e.todo.Source, File: claim.File, Line: claim.Line, Revision: claim.Revision,
					Author: claim.Author, Subject: claim.Subject, CommitTime: claim.CommitTime,
				},
			},
			Spec: claim.Project.GetSpec(),
		}))
		if s.Action == plan.HandOver && !slices.Contains(req.HandOver, s.From) {
			req.HandOver = append(req.HandOver, s.From)
		}
	}
	return req
}

// took records the server's result for one step. e.mu is held.
func (e *executor) took(step int, res *carav1.ApplyResult) {
	if res.Action == api.ApplyRefused {
		e.refuse(step, res.Problem)
		return
	}
	s, out := &e.todo.Steps[step], &e.done.results[step]
	out.Wrote = res.Action != api.ApplyUnchanged
	out.UID = cmp.Or(res.Uid, s.UID)
	if rev, ok := api.ParseRevision(res.ResourceVersion); ok && out.Wrote {
		e.seen = max(e.seen, rev)
	}
	e.memory(s.Project).NoteApplied(s, out.Wrote && s.Action == plan.Update, e.in.Now)
}

// refuse records that the server rejected one step. e.mu is held.
func (e *executor) refuse(step int, problem *carav1.Problem) {
	s, out := &e.todo.Steps[step], &e.done.results[step]
	out.State, out.Message, out.failed = api.ClaimRefused, cmp.Or(problem.GetDetail(), "refused: "+problem.GetTitle()), true
	switch problem.GetTitle() { // the server knows something newer than this plan
	case api.TitleOwned:
		out.State = api.ClaimConflict
	case api.ClaimAdoptionRequired, api.ClaimExpired, api.ClaimOverridden, api.ClaimNotAllowed:
		out.State = problem.Title
	}
	m := e.memory(s.Project)
	m.NoteRefused(s, out.State, out.Message, e.in.Now)
	out.retry = m.Retry
}

func (e *executor) memory(project string) *plan.Memory {
	m := e.mem.claims[project]
	if m == nil {
		m = &plan.Memory{}
		e.mem.claims[project] = m
	}
	return m
}

// deleteAll starts the deletions that the gate allowed. The server checks uid and owner again.
func (e *executor) deleteAll(ctx context.Context) {
	var deletions []int
	for i, s := range e.todo.Steps {
		if s.Action == plan.Delete {
			deletions = append(deletions, i)
		}
	}
	inParallel(deletions, func(i int) { e.delete(ctx, e.todo.Steps[i], &e.done.results[i]) })
}

// delete carries out one deletion.
func (e *executor) delete(ctx context.Context, s plan.Step, out *result) {
	_, err := e.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{
		Name: s.Project, Uid: s.UID, Owner: plan.Owner(e.todo.Source), Reason: s.Reason, NoWait: true,
	})
	switch {
	case err == nil:
		out.Wrote = true
	case api.IsNotFound(err): // already deleted
	case api.IsConflict(err): // the uid or the owner changed: the watch reports it, and the next pass decides again
		out.failed = true
	default:
		out.State, out.Message, out.failed = api.ClaimPruneBlocked, "delete: "+api.ProblemOf(err).GetDetail(), true
		e.fail(fmt.Errorf("delete project %s: %w", s.Project, err))
	}
}

func (e *executor) removeSource(ctx context.Context) {
	meta := e.in.Source.Metadata
	_, err := e.sources.RemoveSource(ctx, &carav1.DeleteRequest{Name: meta.Name, Uid: meta.Uid})
	if err != nil && !api.IsNotFound(err) {
		e.fail(fmt.Errorf("remove source %s: %w", meta.Name, err))
		return
	}
	e.done.removed = true
}
