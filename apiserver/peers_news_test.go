package apiserver

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
	"github.com/caravanserai/cara/store"
)

// TestAgentMoves: a session at one server ends the earlier one at another, and the state of the new one is not older.
func TestAgentMoves(t *testing.T) {
	all, r := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	conns := joined(t, "n1", a, b)
	first := connectAgent(t, conns[0], "1")
	first.synced()
	a.create(t, web("shop"))
	a.bind(t, "shop", "n1")
	first.assignment()
	again := connectAgent(t, conns[1], "1")
	if assigned, _ := again.synced(); len(assigned) != 1 {
		t.Errorf("the agent gets %v from the other server", assigned)
	}
	testproblem.Want(t, first.ended(), codes.Unavailable, "") // the same agent has moved
	impostor := connectAgent(t, conns[0], "2")
	impostor.synced()
	if err := again.ended(); !strings.Contains(err.Error(), "another agent has connected") {
		t.Errorf("the session of another instance ended with %v", err)
	}
	if h, ok := r.add("c", "").Holder("n1"); !ok || h.Server != "a" || h.Instance != "2" {
		t.Errorf("the directory has %v", h)
	}
	// A server that has lost its place, and has it again before it notices, sends the agents away: nobody else would find them.
	r.mu.Lock()
	delete(r.holders, "n1")
	r.note("n1")
	r.mu.Unlock()
	testproblem.Want(t, impostor.ended(), codes.Unavailable, "")
	impostor = connectAgent(t, conns[0], "2")
	impostor.synced()

	// A server that has lost its place sends the agents away, and takes none.
	r.lose("a")
	testproblem.Want(t, impostor.ended(), codes.Unavailable, "")
	refused := connectAgent(t, conns[0], "2").ended()
	if testproblem.Want(t, refused, codes.Unavailable, ""); !strings.Contains(refused.Error(), "server a is not in the directory") {
		t.Errorf("the agent does not hear why: %v", refused)
	}
}

// TestNewsOfAgents: a heartbeat at one server is known at the other one; the server with the agent decides that it is silent, and the
// nodes of a lost server get one full time-out.
func TestNewsOfAgents(t *testing.T) {
	all, r := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	agent := connectAgentAt(t, a.node(t, "n1"), "1", "192.0.2.1:8081", api.CapabilityPublicIngress)
	agent.next() // the session has begun
	if err := agent.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{}, Confirms: true, Answering: []string{"t1"}}); err != nil {
		t.Fatal(err)
	}
	nodes := carav1.NewNodeServiceClient(b.admin(t))
	var seen *carav1.Node
	eventually(t, "b knows the heartbeat of n1", func() bool {
		n, err := nodes.GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
		seen = n
		return err == nil && n.GetStatus().GetLastHeartbeat() != nil
	})
	loop, err := b.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	scheduler := carav1.NewNodeServiceClient(loop)
	_, err = scheduler.MarkNodeNotReady(t.Context(), &carav1.MarkNodeNotReadyRequest{Name: "n1", LastHeartbeat: seen.GetStatus().GetLastHeartbeat()})
	testproblem.Want(t, err, codes.Aborted, "")

	certs, err := b.Client("certs")
	if err != nil {
		t.Fatal(err)
	}
	presented, err := carav1.NewCertificateServiceClient(certs).PresentChallenge(t.Context(), &carav1.PresentChallengeRequest{Host: "h.example.test", Token: "t1", KeyAuthorization: "t1.x"})
	if err != nil || len(presented.GetReady()) != 1 || len(presented.GetMissing()) != 0 {
		t.Errorf("the challenge is answered by %v, %v", presented, err)
	}

	before := b.live.Beats.Of("n1")
	r.ahead.Store(int64(2 * dispatch.NodeLease)) // a marks the node itself: no scheduler runs
	eventually(t, "b knows that the node is not ready", func() bool {
		n, err := nodes.GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
		return err == nil && n.GetStatus().GetState() == api.NodeNotReady
	})
	r.lose("a")
	eventually(t, "the node of the lost server gets more time", func() bool { return b.live.Beats.Of("n1").After(before) })
}

// TestWebhookAnywhere: a delivery at one server wakes a subscriber at the other one, once, and both show it.
func TestWebhookAnywhere(t *testing.T) {
	all, _ := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	sub := b.live.Hints.Subscribe()
	defer b.live.Hints.Unsubscribe(sub)
	d := &carav1.Delivery{Id: "1", Result: api.DeliveryAccepted, Time: timestamppb.Now()}
	a.live.Hints.Seen("src", "1")
	a.live.Hints.Tell("src", d)
	a.live.Hints.Note("src", d)
	select {
	case <-sub.Wake:
	case <-time.After(time.Minute):
		t.Fatal("the subscriber at the other server hears nothing")
	}
	if got := sub.Take()["src"]; !proto.Equal(got, d) {
		t.Errorf("the hint is %v", got)
	}
	eventually(t, "the delivery is known", func() bool { return proto.Equal(b.live.Hints.Of("src"), d) })
	if !b.live.Hints.Seen("src", "1") {
		t.Error("the other server would take the same delivery again")
	}
}

// lateStore is a store whose changes reach the cache of one server only when they are let through.
type lateStore struct {
	store.Store
	open  atomic.Pointer[chan struct{}] // nil lets changes through
	asked atomic.Int32
}

// hold holds changes back until release is called.
func (l *lateStore) hold() (release func()) {
	wait := make(chan struct{})
	l.open.Store(&wait)
	return func() {
		l.open.Store(nil)
		close(wait)
	}
}

// newLatePair starts two servers of one store. What late holds back does not reach b.
func newLatePair(t *testing.T) (a, b *cluster, late *lateStore) {
	t.Helper()
	first, r := newCluster(t, nil), newRegistry()
	late = &lateStore{Store: first.db.Store}
	a, b = first.another(t, r, "a", first.db.Store), first.another(t, r, "b", late)
	eventually(t, "the servers hear of each other", func() bool { return a.peers.HearsAll() && b.peers.HearsAll() })
	return a, b, late
}

func (l *lateStore) Get(ctx context.Context, key string) (store.KV, error) {
	defer l.asked.Add(1)
	return l.Store.Get(ctx, key)
}

func (l *lateStore) Watch(ctx context.Context, after int64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range l.Store.Watch(ctx, after) {
			if wait := l.open.Load(); wait != nil {
				select {
				case <-*wait:
				case <-ctx.Done():
				}
			}
			c.More = false // the next change may be held back
			if !yield(c, err) {
				return
			}
		}
	}
}

// TestCredentialsAnywhere: what one server has made authenticates at another one at once, although its cache is behind.
func TestCredentialsAnywhere(t *testing.T) {
	a, b, late := newLatePair(t)
	release := late.hold()
	token, err := carav1.NewTokenServiceClient(a.admin(t)).CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{Metadata: &carav1.ObjectMeta{Name: "new"}, Role: api.RoleViewer}})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := carav1.NewInfoServiceClient(b.dial(t, token.GetSecret())).GetInfo(t.Context(), &emptypb.Empty{})
		answered <- err
	}()
	eventually(t, "b asks the store", func() bool { return late.asked.Load() > 0 })
	release()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	_, err = carav1.NewInfoServiceClient(b.dial(t, identity.FormatToken("none", identity.NewSecret()))).GetInfo(t.Context(), &emptypb.Empty{})
	testproblem.Want(t, err, codes.Unauthenticated, "")

	// A login with a link, and the page after it, at three servers.
	link, err := carav1.NewTokenServiceClient(a.admin(t)).CreateLogin(t.Context(), &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := sessions{b.Server}.Open(t.Context(), strings.TrimPrefix(link.GetPath(), objects.LoginPath))
	if err != nil {
		t.Fatal(err)
	}
	if actor, err := (sessions{a.Server}).Actor(t.Context(), secret); err != nil || actor.Name != "user/admin" {
		t.Errorf("the session of the other server is %v, %v", actor, err)
	}

	// A node that has joined at one server connects to the other one, and a server that deletes it ends its session there.
	conns := joined(t, "n1", a, b)
	agent := connectAgent(t, conns[1], "1")
	agent.synced()
	if _, err := carav1.NewNodeServiceClient(a.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	testproblem.Want(t, agent.ended(), codes.PermissionDenied, "")
}

// TestJoinedAgainAtAnotherServer: an agent stops when its node has joined with another certificate, whichever server it is connected to.
func TestJoinedAgainAtAnotherServer(t *testing.T) {
	all, r := newServers(t, "a", "b")
	agent := connectAgent(t, all["a"].node(t, "n1"), "1")
	agent.synced()
	r.ahead.Store(int64(2 * dispatch.NodeLease)) // nobody hears the agent any more
	eventually(t, "the node is lost", func() bool {
		n, _ := state.Get[*carav1.Node](all["b"].db.Cache, "n1")
		return n.GetStatus().GetState() == api.NodeNotReady
	})
	eventually(t, "the node has joined again", func() bool {
		r.ahead.Add(int64(2 * dispatch.NodeLease)) // b may hear of an older heartbeat only now
		_, err := join.Join(t.Context(), all["b"].joinConfig(t, "n1"))
		return err == nil
	})
	testproblem.Want(t, agent.ended(), codes.Aborted, api.TitleTakenOver)
}

// TestReadyWhenTheDirectorySaysSo: a node becomes Ready after the directory says which server has its agent. Before, another server that knows
// an old heartbeat only would make it NotReady again.
func TestReadyWhenTheDirectorySaysSo(t *testing.T) {
	all, r := newServers(t, "a")
	a := all["a"]
	conn := a.node(t, "n1")
	r.holds = make(chan chan<- error)
	ready := func() bool {
		n, _ := state.Get[*carav1.Node](a.db.Cache, "n1")
		return n.GetStatus().GetState() == api.NodeReady
	}
	agent := connectAgent(t, conn, "1")
	leave := <-r.holds
	if ready() {
		t.Error("the node is Ready before the directory has its agent")
	}
	leave <- nil
	eventually(t, "the node is Ready", ready)
	agent.synced()
}

// TestAReportIsAhead: a server whose copy does not have an assignment yet takes the report about it when it has it.
func TestAReportIsAhead(t *testing.T) {
	a, b, late := newLatePair(t)
	conns := joined(t, "n1", a, b)
	agent := connectAgent(t, conns[0], "1")
	agent.synced()
	if at := a.db.Cache.Revision(); b.db.Cache.Wait(t.Context(), at) != nil {
		t.Fatal("b is not there")
	}
	release := late.hold()
	a.create(t, web("shop"))
	a.bind(t, "shop", "n1")
	p := agent.assignment().GetProject()
	before := late.asked.Load()
	answered := make(chan error, 1)
	go func() {
		_, err := carav1.NewProjectServiceClient(conns[1]).UpdateProjectStatus(t.Context(), &carav1.UpdateProjectStatusRequest{
			Name: "shop", Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(), ObservedGeneration: p.GetMetadata().GetGeneration(), Phase: api.PhaseRunning,
		})
		answered <- err
	}()
	eventually(t, "b asks the store", func() bool { return late.asked.Load() > before })
	release()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// silentStore is a store that does not answer reads while it is silent.
type silentStore struct {
	store.Store
	silent atomic.Bool
}

func (s *silentStore) Get(ctx context.Context, key string) (store.KV, error) {
	if s.silent.Load() {
		return store.KV{}, errors.New("no leader")
	}
	return s.Store.Get(ctx, key)
}

// TestAStoreThatFailsIsNoRevocation: a caller whom the copy of this server does not know is told to try again while the store does not
// answer. An agent would take anything else for the end of its certificate.
func TestAStoreThatFailsIsNoRevocation(t *testing.T) {
	first, r := newCluster(t, nil), newRegistry()
	st, late := &silentStore{Store: first.db.Store}, &lateStore{}
	late.Store = st
	a, b := first.another(t, r, "a", first.db.Store), first.another(t, r, "b", late)
	eventually(t, "the servers hear of each other", func() bool { return a.peers.HearsAll() && b.peers.HearsAll() })
	defer late.hold()()
	st.silent.Store(true)
	creds := joinAt(t, a, "n1")
	asked := func(conn grpc.ClientConnInterface) error {
		_, err := carav1.NewInfoServiceClient(conn).GetInfo(t.Context(), &emptypb.Empty{})
		return err
	}
	unknown := identity.FormatToken("none", identity.NewSecret())
	for name, err := range map[string]error{
		"a token": asked(b.dial(t, unknown)), "a node": asked(creds(b)),
	} {
		testproblem.Want(t, err, codes.Unavailable, "")
		if strings.Contains(err.Error(), "no leader") || !strings.Contains(err.Error(), "try again") {
			t.Errorf("%s is told %v", name, err)
		}
	}
	if _, err := (sessions{b.Server}).Actor(t.Context(), unknown); api.Code(err) != codes.Unavailable {
		t.Errorf("a login is told %v", err)
	}
	if _, _, err := (sessions{b.Server}).Open(t.Context(), unknown); api.Code(err) != codes.Unavailable {
		t.Errorf("a link is told %v", err)
	}
}

// joinAt joins a node at a server, and returns what connects it to others.
func joinAt(t *testing.T, c *cluster, node string) func(other *cluster) *grpc.ClientConn {
	t.Helper()
	cfg := c.joinConfig(t, node)
	if _, err := join.Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return func(other *cluster) *grpc.ClientConn {
		cfg.Server = "http://" + other.addr
		creds, err := join.Join(t.Context(), cfg) // it has its certificate
		if err != nil {
			t.Fatal(err)
		}
		return dialAs(t, creds)
	}
}

// TestARecordWithoutASessionIsRemoved: a server says that it has an agent, which is not there: because the record was written after the
// agent had left, or could not be removed. It removes the record, also if nothing tells that there is one.
func TestARecordWithoutASessionIsRemoved(t *testing.T) {
	all, r := newServers(t, "a", "b")
	agent := connectAgent(t, all["a"].node(t, "n1"), "1")
	agent.synced()
	all["a"].node(t, "n2")
	remains := func(node string, told bool) func() bool {
		r.mu.Lock()
		r.holders[node] = directory.Holder{Server: "a", Instance: "2"}
		if told {
			r.note(node)
		}
		r.mu.Unlock()
		return func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.holders[node].Server != "a"
		}
	}
	eventually(t, "a told record is removed", remains("unknown", true))
	eventually(t, "a record is removed", remains("n2", false))
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.holders["n1"]; h.Server != "a" {
		t.Errorf("the record of an agent that is there: %v", h)
	}
}
