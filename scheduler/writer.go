package scheduler

import (
	"context"
	"fmt"
	"runtime"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// maxBatch is how many decisions the API takes in one call.
	maxBatch = 64
	// writers is how many calls with decisions run concurrently: while the store syncs one, the next one is filled.
	writers = 4
)

// written is what the scheduler needs of a project after a decision.
type written struct {
	revision int64
	epoch    int32
}

// order is a decision on its way to the server.
type order struct {
	req  *carav1.ScheduleProjectRequest
	done chan answer // buffered: a writer never blocks on a worker
}

type answer struct {
	written
	err error
}

// writer writes decisions. Workers that decide at the same time share a call, so that the server commits their decisions in
// one transaction. Each decision still succeeds or fails for itself.
type writer struct {
	projects carav1.ProjectServiceClient
	orders   chan *order
}

// write writes one decision.
func (w writer) write(ctx context.Context, req *carav1.ScheduleProjectRequest) (written, error) {
	o := &order{req: req, done: make(chan answer, 1)}
	select {
	case w.orders <- o:
	case <-ctx.Done():
		return written{}, ctx.Err()
	}
	select {
	case a := <-o.done:
		return a.written, a.err
	case <-ctx.Done():
		return written{}, ctx.Err()
	}
}

// run writes batches until ctx ends.
func (w writer) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-w.orders:
			w.send(ctx, w.gather(first))
		}
	}
}

// gather adds the decisions that wait. When there are none, it yields once: workers that just got their answers are about to
// decide again.
func (w writer) gather(first *order) []*order {
	batch := []*order{first}
	for yielded := false; len(batch) < maxBatch; {
		select {
		case o := <-w.orders:
			batch = append(batch, o)
			yielded = false
		default:
			if yielded {
				return batch
			}
			yielded = true
			runtime.Gosched()
		}
	}
	return batch
}

// send writes a batch and answers each of its workers. If the server rejects the whole call as invalid, each decision gets a
// call of its own, so that one project never blocks another.
func (w writer) send(ctx context.Context, batch []*order) {
	if len(batch) == 1 {
		p, err := w.projects.ScheduleProject(ctx, batch[0].req)
		batch[0].done <- answer{written{api.RevisionOf(p), p.GetStatus().GetEpoch()}, err}
		return
	}
	req := &carav1.ScheduleProjectsRequest{Decisions: make([]*carav1.ScheduleProjectRequest, len(batch))}
	for i, o := range batch {
		req.Decisions[i] = o.req
	}
	resp, err := w.projects.ScheduleProjects(ctx, req)
	if api.Code(err) == codes.InvalidArgument {
		for i := range batch {
			w.send(ctx, batch[i:i+1])
		}
		return
	}
	if results := resp.GetResults(); err == nil && len(results) != len(batch) {
		err = fmt.Errorf("%d results for %d decisions", len(results), len(batch))
	}
	for i, o := range batch {
		a := answer{err: err}
		if err == nil {
			a = answerOf(resp.GetResults()[i])
		}
		o.done <- a
	}
}

func answerOf(r *carav1.ScheduleProjectResult) answer {
	if code := codes.Code(r.GetCode()); code != codes.OK {
		return answer{err: api.Errorf(code, r.GetProblem().GetTitle(), "%s", r.GetProblem().GetDetail())}
	}
	revision, _ := api.ParseRevision(r.GetResourceVersion())
	return answer{written: written{revision, r.GetEpoch()}}
}
