package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// callTimeout is shorter than a restart, so that a client is not idle over it.
const callTimeout = 2 * time.Second

// never is when an operation returns whose outcome nobody knows: it may still be done.
const never = int64(1) << 60

// traffic is what the clients share: the calls that they made, as they were answered.
type traffic struct {
	projects carav1.ProjectServiceClient
	keys     int
	start    time.Time
	values   atomic.Int64

	mu     sync.Mutex
	ops    []porcupine.Operation
	acked  int
	strays []error // answers that no client may get
}

func (w *traffic) now() int64 { return time.Since(w.start).Nanoseconds() }

// run makes random calls until ctx ends.
func (w *traffic) run(ctx context.Context, client int, rng *rand.Rand) {
	for ctx.Err() == nil {
		c := call{kind: kind(rng.IntN(4)), key: fmt.Sprintf("p-%d", rng.IntN(w.keys)), value: int(w.values.Add(1))}
		version := ""
		if c.kind == swap { // the read before it is an operation of its own
			p, r := w.do(ctx, client, call{kind: read, key: c.key}, "")
			if r.outcome != done {
				continue
			}
			c.from, version = r.value, p.GetMetadata().GetResourceVersion()
		}
		if _, r := w.do(ctx, client, c, version); r.outcome == unknown {
			select { // the server is away
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// do makes one call and notes it.
func (w *traffic) do(ctx context.Context, client int, c call, version string) (*carav1.Project, result) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	op := porcupine.Operation{ClientId: client, Input: c, Call: w.now()}
	p, err := w.ask(bounded, c, version)
	op.Return = w.now()
	r := outcomeOf(p, err)
	if r.outcome == unknown {
		op.Return = never
	}
	op.Output = r
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.outcome == conflict || c.kind == read && r.outcome == unknown || neverSent(err) {
		return p, r // says nothing of the value
	}
	w.ops = append(w.ops, op)
	if c.kind != read && r.outcome == done {
		w.acked++
	}
	if code := api.Code(err); err != nil && r.outcome == unknown && code != codes.Unavailable && code != codes.DeadlineExceeded {
		w.strays = append(w.strays, fmt.Errorf("%v of %s: %w", c.kind, c.key, err))
	}
	return p, r
}

// neverSent says that a call found no server, so that it cannot have done anything.
func neverSent(err error) bool {
	return err != nil && strings.Contains(err.Error(), "connection refused")
}

// close gives the calls that were cut off an end: a server that was killed does nothing any more.
func (w *traffic) close(kills []int64) {
	for i := range w.ops {
		for _, at := range kills {
			if w.ops[i].Return == never && at > w.ops[i].Call {
				w.ops[i].Return = at
			}
		}
	}
}

func (w *traffic) ask(ctx context.Context, c call, version string) (*carav1.Project, error) {
	switch c.kind {
	case read:
		return w.projects.GetProject(ctx, &carav1.GetRequest{Name: c.key})
	case remove:
		_, err := w.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: c.key})
		return nil, err
	case write, swap:
	}
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject,
		Metadata: &carav1.ObjectMeta{Name: c.key, ResourceVersion: version},
		Spec:     &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: "example.test/web:" + strconv.Itoa(c.value)}}},
	}
	return w.projects.PutProject(ctx, &carav1.PutProjectRequest{Project: p})
}

func outcomeOf(p *carav1.Project, err error) result {
	switch {
	case err == nil:
		return result{done, valueOf(p)}
	case api.IsNotFound(err):
		return result{outcome: missing}
	case api.IsConflict(err):
		return result{outcome: conflict}
	}
	return result{outcome: unknown}
}

// valueOf is what a project's register holds.
func valueOf(p *carav1.Project) int {
	for _, s := range p.GetSpec().GetServices() {
		_, tag, _ := strings.Cut(s.GetImage(), ":")
		if n, err := strconv.Atoi(tag); err == nil {
			return n
		}
	}
	return absent
}
