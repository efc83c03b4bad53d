package apiserver

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// caller is one of those who change projects.
type caller struct {
	name     string
	projects carav1.ProjectServiceClient
	apply    carav1.ApplyServiceClient
}

// Concurrent random calls by random callers: every phase move is in the table, epochs and generations only grow, a claim on
// a host belongs to one existing project, and every phase change has a reason.
func TestRandomCallsNeverBreakTheTable(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.DeleteWait = time.Nanosecond })
	addNode(t, h, "n1")
	addNode(t, h, "n2")
	h.haveSource(t, "platform")
	var callers []caller
	for _, token := range []string{"admin", "ci", "n1", "n2"} {
		conn := h.as(t, token)
		callers = append(callers, caller{token, carav1.NewProjectServiceClient(conn), carav1.NewApplyServiceClient(conn)})
	}
	for _, loop := range []string{"scheduler", "gc", "reconciler"} {
		conn := h.loop(t, loop)
		callers = append(callers, caller{loop, carav1.NewProjectServiceClient(conn), carav1.NewApplyServiceClient(conn)})
	}
	judge := newJudge(t, h)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(worker), 7))
			for range 1500 {
				c := callers[rnd.IntN(len(callers))]
				randomCall(t, h, rnd, c)
			}
		})
	}
	wg.Wait()
	judge.finish(t, h)
}

// randomCall makes one call. Most calls are rejected, which is intended.
func randomCall(t *testing.T, h *house, rnd *rand.Rand, c caller) {
	name := "pr-" + strconv.Itoa(rnd.IntN(5))
	seen, _ := state.Get[*carav1.Project](h.db.Cache, name)
	seen = proto.CloneOf(seen)
	if seen == nil {
		seen = &carav1.Project{Status: &carav1.ProjectStatus{}, Metadata: &carav1.ObjectMeta{}}
	}
	in := web(name)
	in.Spec.Services[0].Image = "nginx:" + strconv.Itoa(rnd.IntN(3))
	if rnd.IntN(2) == 0 {
		in.Spec.Ingress = []*carav1.Ingress{{
			Name: "web", Host: "h" + strconv.Itoa(rnd.IntN(3)), Path: []string{"", "/a", "/b"}[rnd.IntN(3)],
			Target: &carav1.IngressTarget{Service: "web", Port: 80},
		}}
	}
	ctx := t.Context()
	epoch := seen.GetStatus().GetEpoch() + int32(rnd.IntN(3)) - 1
	phases := []string{"", "Running", "Failed", "Terminated"}
	actions := []string{"Bind", "Bind", "Bind", "Explain", "Evict", "Abandon"}
	var err error
	switch rnd.IntN(9) {
	case 0:
		_, err = c.projects.CreateProject(ctx, &carav1.CreateProjectRequest{Project: in})
	case 1:
		_, err = c.projects.PutProject(ctx, &carav1.PutProjectRequest{Project: in})
	case 2:
		_, err = c.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: name, Force: rnd.IntN(4) == 0})
	case 3, 4:
		_, err = c.projects.UpdateProjectStatus(ctx, &carav1.UpdateProjectStatusRequest{
			Name: name, Uid: seen.GetMetadata().GetUid(), Epoch: epoch, Phase: phases[rnd.IntN(4)],
			ObservedGeneration: seen.GetMetadata().GetGeneration() - int32(rnd.IntN(2)),
			Conditions:         []*carav1.Condition{{Type: api.CondReady, Status: api.StatusFalse, Reason: "Random", Message: "so it is"}},
		})
		if err == nil && (epoch != seen.GetStatus().GetEpoch() || c.name != seen.GetStatus().GetNodeRef()) {
			// The project may have moved between the look and the call; then only the current node and epoch are accepted.
			now, ok := state.Get[*carav1.Project](h.db.Cache, name)
			if ok && now.GetStatus().GetEpoch() > epoch+1 {
				t.Errorf("a report of %s in epoch %d was accepted for %s", c.name, epoch, name)
			}
		}
	case 5, 6:
		_, err = c.projects.ScheduleProject(ctx, &carav1.ScheduleProjectRequest{
			Name: name, ResourceVersion: seen.GetMetadata().GetResourceVersion(), Action: actions[rnd.IntN(len(actions))],
			NodeRef: "n" + strconv.Itoa(1+rnd.IntN(2)),
		})
	case 7:
		_, err = c.projects.RemoveProject(ctx, &carav1.RemoveProjectRequest{Name: name, Uid: seen.GetMetadata().GetUid()})
	case 8:
		err = randomVerb(t, rnd, c, name, in)
	}
	if code := api.Code(err).String(); code == "Internal" || code == "Unknown" {
		t.Errorf("%s: %v", c.name, err)
	}
}

func randomVerb(t *testing.T, rnd *rand.Rand, c caller, name string, in *carav1.Project) (err error) {
	ctx := t.Context()
	switch rnd.IntN(6) {
	case 0:
		_, err = c.projects.RetryProject(ctx, &carav1.RetryProjectRequest{Name: name})
	case 1:
		_, err = c.projects.RestartProject(ctx, &carav1.RestartProjectRequest{Name: name})
	case 2:
		_, err = c.projects.ExtendProject(ctx, &carav1.ExtendProjectRequest{Name: name, Until: timestamppb.New(time.Now().Add(time.Hour))})
	case 3:
		_, err = c.projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{
			Name: name, Clear: rnd.IntN(2) == 0,
			Terms: &carav1.OverrideTerms{Reason: "random", For: durationpb.New(time.Duration(rnd.IntN(50)) * time.Millisecond)},
		})
	default:
		_, err = c.apply.Apply(ctx, &carav1.ApplyRequest{
			Source: "platform", Adopt: []string{"", "Never", "Always"}[rnd.IntN(3)], HandOver: []string{"source/other"},
			Objects: []*carav1.Object{api.Wrap(in)},
		})
	}
	return err
}

// judge watches every transaction and checks it against the table.
type judge struct {
	done chan struct{}
	stop chan struct{}
	bad  []string
	n    int
}

func newJudge(t *testing.T, h *house) *judge {
	j := &judge{done: make(chan struct{}), stop: make(chan struct{})}
	_, from := state.Page[*carav1.Project](h.db.Cache, "", "", 0, nil)
	at, _ := api.ParseRevision(from.GetResourceVersion())
	go func() {
		defer close(j.done)
		for {
			txs, wake, ok := h.db.Cache.After(at)
			if !ok {
				j.bad = append(j.bad, "the ring was too short for the test")
				return
			}
			for _, tx := range txs {
				if tx.Rev != at+1 {
					j.bad = append(j.bad, fmt.Sprintf("revision %d follows %d", tx.Rev, at))
				}
				j.transaction(tx)
				at = tx.Rev
			}
			if len(txs) > 0 {
				continue
			}
			select {
			case <-wake:
			case <-j.stop:
				return
			}
		}
	}()
	return j
}

func (j *judge) transaction(tx state.Transaction) {
	for _, ch := range tx.Changes {
		old, p := state.As[*carav1.Project](ch.Old), state.As[*carav1.Project](ch.New)
		if old == nil && p == nil {
			continue
		}
		j.n++
		from, to := old.GetStatus().GetPhase(), p.GetStatus().GetPhase()
		if !listed(from, to) {
			j.bad = append(j.bad, fmt.Sprintf("%s moved from %q to %q at %d", ch.Name, from, to, tx.Rev))
		}
		if p == nil || old == nil {
			continue
		}
		if p.GetStatus().GetEpoch() < old.GetStatus().GetEpoch() || p.GetMetadata().GetGeneration() < old.GetMetadata().GetGeneration() ||
			p.GetStatus().GetObservedGeneration() > p.GetMetadata().GetGeneration() {
			j.bad = append(j.bad, fmt.Sprintf("%s went back in time at %d: %v", ch.Name, tx.Rev, p))
		}
		if p.GetStatus().GetNodeRef() != old.GetStatus().GetNodeRef() && p.GetStatus().GetNodeRef() != "" && p.GetStatus().GetEpoch() != old.GetStatus().GetEpoch()+1 {
			j.bad = append(j.bad, fmt.Sprintf("%s came to %s without a new epoch", ch.Name, p.GetStatus().GetNodeRef()))
		}
		if from != to && api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase).GetMessage() == "" {
			j.bad = append(j.bad, fmt.Sprintf("%s moved from %s to %s without saying why", ch.Name, from, to))
		}
	}
}

// listed reports whether the table has a move for any role. A forced deletion passes through all phases in one transaction,
// of which a watcher sees only the last.
func listed(from, to string) bool {
	if from == to || to == "" {
		return true
	}
	for _, m := range api.Moves() {
		if string(m.From) == from && string(m.To) == to {
			return true
		}
	}
	return false
}

func (j *judge) finish(t *testing.T, h *house) {
	t.Helper()
	close(j.stop)
	<-j.done
	for _, bad := range j.bad {
		t.Error(bad)
	}
	if j.n < 200 {
		t.Errorf("only %d changes of projects: the walk proves nothing", j.n)
	}
	claims := map[string]string{}
	projects, _ := state.Page[*carav1.Project](h.db.Cache, "", "", 0, nil)
	for _, p := range projects {
		for host, paths := range h.db.Hosts.Paths(p.GetSpec()) {
			for _, path := range paths {
				if other, twice := claims[host+path]; twice {
					t.Errorf("%s%s belongs to %s and %s", host, path, other, p.GetMetadata().GetName())
				}
				claims[host+path] = p.GetMetadata().GetName()
			}
		}
	}
	h.db.Cache.View().Ascend(state.KindHost, "", "", func(e *state.Entry) bool {
		claim := e.Message().(*carav1.HostClaim)
		paths := claim.GetPaths()
		if len(paths) == 0 {
			paths = []*carav1.PathClaim{{Path: "/", Project: claim.GetName()}}
		}
		for _, c := range paths {
			if claims[e.Name+c.GetPath()] != c.GetProject() {
				t.Errorf("%s%s is claimed by %v, and its project is %q", e.Name, c.GetPath(), c, claims[e.Name+c.GetPath()])
			}
			delete(claims, e.Name+c.GetPath())
		}
		return true
	})
	if len(claims) > 0 {
		t.Errorf("paths without a claim: %v", claims)
	}
}
