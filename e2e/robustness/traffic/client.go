package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/e2e/robustness/model"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// shortCall is shorter than a restart, so that a client is not idle while one lasts. longCall is longer than a lease, so that
	// a call can reach a paused server and be answered when it continues.
	shortCall = 2 * time.Second
	longCall  = 15 * time.Second
	retry     = 20 * time.Millisecond
	// keyLabel is a label that no node has, so that the projects of clients wait for a node and no agent acts on them.
	keyLabel = "robustness.test/nowhere"
)

// Client makes random calls about a few projects.
type Client struct {
	Recorder *Recorder
	Servers  Servers
	ID       int
	Keys     int // how many projects the clients share
	Hosts    int // how many ingress hosts they share
	Random   *rand.Rand
	// Think is the mean pause between two calls; 0 is none.
	Think time.Duration

	line *line
}

// Run makes calls until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	var err error
	if c.line, err = c.Servers.dial(c.ID); err != nil {
		return err
	}
	for ctx.Err() == nil {
		c.once(ctx)
		if c.Think > 0 {
			pause(ctx, time.Duration(c.Random.Int64N(2*int64(c.Think))))
		}
	}
	return c.line.close()
}

// Claim creates and deletes projects with new names until ctx ends. Some want a host that others want, too. Its calls wait for a
// paused server, which then has many of them when it continues, and nothing in its old view contradicts most of them.
func (c *Client) Claim(ctx context.Context) error {
	var err error
	if c.line, err = c.Servers.dial(c.ID); err != nil {
		return err
	}
	for ctx.Err() == nil {
		value := c.Recorder.fresh()
		call := model.Call{Kind: model.Create, Key: fmt.Sprintf("c-%d", value), Value: value}
		if _, r := c.within(ctx, longCall, call, ""); r.Outcome == model.Refused {
			pause(ctx, retry)
			continue
		}
		pause(ctx, time.Duration(c.Random.IntN(100))*time.Millisecond)
		call.Kind, call.Value = model.Remove, 0
		for ctx.Err() == nil {
			if _, r := c.within(ctx, shortCall, call, ""); r.Outcome == model.Done || r.Outcome == model.Missing {
				break
			}
		}
	}
	return c.line.close()
}

// once makes one random call, or a read and a swap.
func (c *Client) once(ctx context.Context) {
	call := model.Call{Key: fmt.Sprintf("p-%d", c.Random.IntN(c.Keys))}
	switch n := c.Random.IntN(100); {
	case n < 20:
		call.Kind = model.Read
	case n < 30:
		c.list(ctx)
		return
	case n < 45:
		call.Kind, call.Value = model.Create, c.Recorder.fresh()
	case n < 65:
		call.Kind, call.Value = model.Put, c.Recorder.fresh()
	case n < 72:
		call.Kind = model.Extend
	case n < 85:
		call.Kind = model.Remove
	default:
		c.swap(ctx, call)
		return
	}
	c.do(ctx, call, "")
}

// swap reads a project and replaces what it has read.
func (c *Client) swap(ctx context.Context, call model.Call) {
	call.Kind = model.Read
	p, r := c.do(ctx, call, "")
	if r.Outcome != model.Done {
		return
	}
	if c.Random.IntN(4) == 0 { // so that others are faster
		pause(ctx, time.Duration(c.Random.IntN(50))*time.Millisecond)
	}
	if len(c.line.conns) > 1 && c.Random.IntN(3) == 0 { // a server that may not have reached the revision yet
		c.line.next()
	}
	call.Kind, call.From, call.Value = model.Swap, r.Value, c.Recorder.fresh()
	c.do(ctx, call, p.GetMetadata().GetResourceVersion())
}

// do makes one call with a random limit.
func (c *Client) do(ctx context.Context, call model.Call, version string) (*carav1.Project, model.Result) {
	limit := shortCall
	if c.Random.IntN(5) == 0 {
		limit = longCall
	}
	return c.within(ctx, limit, call, version)
}

// within makes one call and records it.
func (c *Client) within(ctx context.Context, limit time.Duration, call model.Call, version string) (*carav1.Project, model.Result) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	op := model.Operation{Client: c.ID, Call: call, Server: c.line.at, Start: c.Recorder.Now()}
	p, err := c.ask(bounded, call, version)
	op.End = c.Recorder.Now()
	op.Result = result(call, p, err)
	c.Recorder.operation(op)
	if op.Outcome == model.Unknown || op.Outcome == model.NotAsked {
		c.line.next()
		pause(ctx, retry)
	}
	return p, op.Result
}

func (c *Client) ask(ctx context.Context, call model.Call, version string) (*carav1.Project, error) {
	projects := carav1.NewProjectServiceClient(c.line.conn())
	switch call.Kind {
	case model.Read:
		return projects.GetProject(ctx, &carav1.GetRequest{Name: call.Key})
	case model.Remove:
		_, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: call.Key})
		return nil, err
	case model.Extend:
		until := timestamppb.New(time.Now().Add(24*time.Hour + time.Duration(c.Random.IntN(1e6))*time.Millisecond))
		return projects.ExtendProject(ctx, &carav1.ExtendProjectRequest{Name: call.Key, Until: until})
	case model.Create:
		return projects.CreateProject(ctx, &carav1.CreateProjectRequest{Project: c.project(call, "")})
	case model.Put, model.Swap:
	}
	return projects.PutProject(ctx, &carav1.PutProjectRequest{Project: c.project(call, version)})
}

// project is a project with a value that waits for a node. Some have a host that others want, too.
func (c *Client) project(call model.Call, version string) *carav1.Project {
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject,
		Metadata: &carav1.ObjectMeta{Name: call.Key, ResourceVersion: version},
		Spec: &carav1.ProjectSpec{
			NodeSelector: map[string]string{keyLabel: "true"},
			Services:     []*carav1.Service{{Name: "web", Image: "example.test/web:" + strconv.Itoa(call.Value)}},
		},
	}
	if c.Hosts > 0 && c.Random.IntN(3) == 0 {
		p.Spec.Ingress = []*carav1.Ingress{{
			Name: "web", Host: fmt.Sprintf("h-%d.robustness.test", c.Random.IntN(c.Hosts)), Target: &carav1.IngressTarget{Service: "web", Port: 80},
		}}
	}
	return p
}

func (c *Client) list(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortCall)
	defer cancel()
	l := model.Listing{Client: c.ID, Server: c.line.at, Start: c.Recorder.Now()}
	list, err := carav1.NewProjectServiceClient(c.line.conn()).ListProjects(bounded, &carav1.ListProjectsRequest{})
	l.End = c.Recorder.Now()
	if err == nil {
		l.Revision, err = strconv.ParseInt(list.GetMetadata().GetResourceVersion(), 10, 64)
	}
	if err != nil {
		c.line.next()
		pause(ctx, retry)
		return
	}
	l.Values = Values(list.GetItems())
	c.Recorder.listing(l)
}

// result says what an answer means.
func result(call model.Call, p *carav1.Project, err error) model.Result {
	switch code := api.Code(err); {
	case err == nil:
		return model.Result{Outcome: model.Done, Value: valueOf(p), Revision: revisionOf(p)}
	case api.IsNotFound(err):
		return model.Result{Outcome: model.Missing}
	case call.Kind == model.Create && api.ProblemOf(err).GetTitle() == api.TitleAlreadyExists: // a host that is taken is a Conflict
		return model.Result{Outcome: model.Exists}
	case strings.Contains(err.Error(), "connection refused"):
		return model.Result{Outcome: model.NotAsked}
	case code == codes.Aborted, code == codes.AlreadyExists, code == codes.FailedPrecondition, code == codes.InvalidArgument:
		return model.Result{Outcome: model.Refused, Error: err.Error()}
	default: // no client may get another code than these two, whatever fails
		odd := code != codes.Unavailable && code != codes.DeadlineExceeded
		return model.Result{Outcome: model.Unknown, Error: err.Error(), Odd: odd}
	}
}

// valueOf is what a project's register holds. Projects of others than Client have the value 1.
func valueOf(p *carav1.Project) int {
	if p == nil || p.GetStatus().GetPhase() == api.PhaseTerminating || p.GetStatus().GetPhase() == api.PhaseTerminated {
		return model.Absent
	}
	for _, s := range p.GetSpec().GetServices() {
		if image, tag, _ := strings.Cut(s.GetImage(), ":"); image == "example.test/web" {
			if n, err := strconv.Atoi(tag); err == nil {
				return n
			}
		}
	}
	return 1
}

func revisionOf(p *carav1.Project) int64 {
	n, err := strconv.ParseInt(p.GetMetadata().GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Values returns what the registers of projects hold.
func Values(projects []*carav1.Project) map[string]int {
	values := map[string]int{}
	for _, p := range projects {
		if v := valueOf(p); v != model.Absent {
			values[p.GetMetadata().GetName()] = v
		}
	}
	return values
}
