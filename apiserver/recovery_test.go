package apiserver

import (
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// recovered is a cluster whose state was taken back: in the state, n1 has the projects shop and back, and n2 is there, too.
type recovered struct {
	*cluster
	conns map[string]*grpc.ClientConn
	uids  map[string]string
}

// recoveredCluster makes a state, and starts a server on it after a recovery. within is the time that nodes have to connect.
func recoveredCluster(t *testing.T, within time.Duration) *recovered {
	t.Helper()
	dir := t.TempDir()
	before := openCluster(t, dir, nil)
	r := &recovered{conns: map[string]*grpc.ClientConn{}, uids: map[string]string{}}
	joins := map[string]join.Config{}
	for _, name := range []string{"n1", "n2"} {
		joins[name] = before.joinConfig(t, name)
		creds, err := join.Join(t.Context(), joins[name])
		if err != nil {
			t.Fatal(err)
		}
		connectAgent(t, dialAs(t, creds), name).synced()
	}
	for _, name := range []string{"shop", "back"} {
		before.create(t, web(name))
		r.uids[name] = before.bind(t, name, "n1").GetMetadata().GetUid()
	}
	before.stop()
	r.cluster = openCluster(t, dir, func(cfg *Config) {
		op, err := state.RecoveryOp()
		if err == nil {
			_, err = cfg.Store.Commit(t.Context(), store.Txn{Do: []store.Op{op}})
		}
		if err != nil {
			t.Fatal(err)
		}
		cfg.recoveryWait = within
	})
	for name, cfg := range joins {
		cfg.Server = "http://" + r.addr
		creds, err := join.Join(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		r.conns[name] = dialAs(t, creds)
	}
	return r
}

// joins connects an agent that can tell what it has.
func (r *recovered) joins(t *testing.T, node string) *fakeAgent {
	t.Helper()
	return connectAgentAt(t, r.conns[node], node, "192.0.2.1:8081", api.CapabilityRecovery)
}

// asked waits for the welcome, and returns whether it asks what the node has obeyed.
func (a *fakeAgent) asked() bool {
	a.t.Helper()
	for {
		if w := a.next().GetWelcome(); w != nil {
			return w.GetAskObeyed()
		}
	}
}

// gets returns the epochs of the assignments up to Synced, by project.
func (a *fakeAgent) gets() map[string]int32 {
	a.t.Helper()
	got := map[string]int32{}
	for {
		m := a.next()
		if m.GetSynced() != nil {
			return got
		}
		if p := m.GetAssignment().GetProject(); p != nil {
			got[p.GetMetadata().GetName()] = p.GetStatus().GetEpoch()
		}
	}
}

// tells answers the question.
func (a *fakeAgent) tells(obeyed ...*carav1.ObeyedProject) {
	a.t.Helper()
	if err := a.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{}, Obeyed: &carav1.Obeyed{Projects: obeyed}}); err != nil {
		a.t.Fatal(err)
	}
}

// TestRecovery: after a recovery, no node gets assignments until all nodes have told what they have. A project that a node has with
// a later epoch keeps it, and a project of which another node has something waits until that node has removed it.
func TestRecovery(t *testing.T) {
	r := recoveredCluster(t, time.Hour)
	one := r.joins(t, "n1")
	if !one.asked() {
		t.Fatal("n1 is not asked")
	}
	one.tells(&carav1.ObeyedProject{Name: "back", Uid: r.uids["back"], Epoch: 5})
	until(t, "n1 has told", func() bool { return r.nodeOf(t, "n1").GetStatus().GetRecovery() != "" })
	if st := r.projectOf(t, "back").GetStatus(); st.GetEpoch() != 5 || st.GetHeldBy() != "" {
		t.Errorf("back %v", st)
	}
	two := r.joins(t, "n2")
	if !two.asked() {
		t.Fatal("n2 is not asked")
	}
	select {
	case m := <-one.got:
		t.Fatalf("n1 gets %v before n2 has told what it has", m)
	default:
	}
	two.tells(&carav1.ObeyedProject{Name: "shop", Uid: r.uids["shop"], Epoch: 3}, &carav1.ObeyedProject{Name: "new", Uid: "later", Epoch: 1})
	if u := two.unassigned(); u.GetName() != "shop" || u.GetEpoch() != 4 {
		t.Errorf("unassigned %v", u)
	}
	if got := one.gets(); !maps.Equal(got, map[string]int32{"back": 5}) {
		t.Errorf("n1 gets %v", got)
	}
	if ready := api.FindCondition(r.projectOf(t, "shop").GetStatus().GetConditions(), api.CondReady); ready.GetReason() != api.ReasonMoving {
		t.Errorf("shop: %v", ready)
	}
	if err := two.stream.Send(&carav1.ConnectRequest{
		Heartbeat: &carav1.Heartbeat{}, Released: []*carav1.Released{{Name: "shop", Uid: r.uids["shop"], Epoch: 4}},
	}); err != nil {
		t.Fatal(err)
	}
	if a := one.assignment(); a.GetProject().GetMetadata().GetName() != "shop" || a.GetProject().GetStatus().GetEpoch() != 4 {
		t.Errorf("assigned %v", a)
	}
	if told := r.recoveryOf(t, "n2"); !strings.Contains(told, "removes shop, which another node gets; it removes new, which the recovered state does not have") {
		t.Errorf("the event of n2 says %q", told)
	}
	again := r.joins(t, "n1")
	if again.asked() {
		t.Error("n1 is asked twice")
	}
	again.tells(&carav1.ObeyedProject{Name: "back", Uid: r.uids["back"], Epoch: 9})
	again.heard(r.cluster, "n1")
	if st := r.projectOf(t, "back").GetStatus(); st.GetEpoch() != 5 {
		t.Errorf("n1 was believed twice: back %v", st)
	}
}

// TestObeyedUnasked: what a node says that it has obeyed changes nothing if there was no recovery.
func TestObeyedUnasked(t *testing.T) {
	c := newCluster(t, nil)
	one, two := connectAgent(t, c.node(t, "n1"), "1"), connectAgent(t, c.node(t, "n2"), "2")
	one.synced()
	two.synced()
	c.create(t, web("shop"))
	uid := c.bind(t, "shop", "n1").GetMetadata().GetUid()
	for node, agent := range map[string]*fakeAgent{"n1": one, "n2": two} {
		agent.tells(&carav1.ObeyedProject{Name: "shop", Uid: uid, Epoch: 7})
		agent.heard(c, node)
		p, _ := state.Get[*carav1.Project](c.db.Cache, "shop")
		if st := p.GetStatus(); st.GetEpoch() != 1 || st.GetHeldBy() != "" {
			t.Errorf("%s was believed: shop %v", node, st)
		}
	}
}

// heard returns when the server has handled all that the agent has sent so far.
func (a *fakeAgent) heard(c *cluster, node string) {
	a.t.Helper()
	cond := &carav1.Condition{Type: api.CondDiskPressure, Status: api.StatusTrue, Reason: "Test", Message: "test"}
	a.says(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Conditions: []*carav1.Condition{cond}}})
	until(a.t, "the server hears of "+node, func() bool {
		n, _ := state.Get[*carav1.Node](c.db.Cache, node)
		return api.FindCondition(n.GetStatus().GetConditions(), cond.GetType()) != nil
	})
}

// TestRecoveryWithAnOlderAgent: an agent that cannot tell what it has is not waited for, and a node that is lost neither.
func TestRecoveryWithAnOlderAgent(t *testing.T) {
	r := recoveredCluster(t, time.Millisecond)
	one := connectAgent(t, r.conns["n1"], "old")
	if one.asked() {
		t.Error("an agent that cannot answer is asked")
	}
	until(t, "the log says who has not told", func() bool { return strings.Contains(r.log.String(), "nodes=n2") })
	r.loses(t, "n2")
	if got := one.gets(); !maps.Equal(got, map[string]int32{"back": 1, "shop": 1}) {
		t.Errorf("n1 gets %v", got)
	}
	two := r.joins(t, "n2") // late: n1 may run shop
	two.asked()
	two.tells(&carav1.ObeyedProject{Name: "shop", Uid: r.uids["shop"], Epoch: 3})
	if got := two.gets(); len(got) > 0 {
		t.Errorf("n2 gets %v", got)
	}
	if st := r.projectOf(t, "shop").GetStatus(); st.GetHeldBy() != "" || st.GetNodeRef() != "n1" {
		t.Errorf("shop %v", st)
	}
}

// loses marks a node as the scheduler would.
func (r *recovered) loses(t *testing.T, name string) {
	t.Helper()
	loop, err := r.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	_, err = carav1.NewNodeServiceClient(loop).MarkNodeNotReady(t.Context(), &carav1.MarkNodeNotReadyRequest{
		Name: name, LastHeartbeat: r.objects.OverlayNode(r.nodeOf(t, name)).GetStatus().GetLastHeartbeat(), Message: "no heartbeat",
	})
	if err != nil {
		t.Fatal(err)
	}
}

// recoveryOf returns the message of a node's event.
func (r *recovered) recoveryOf(t *testing.T, node string) string {
	t.Helper()
	for _, e := range state.List[*carav1.Event](r.db.Cache, "") {
		if e.GetReason() == api.ReasonRecovered && e.GetObject().GetKind() == api.KindNode && e.GetObject().GetName() == node {
			return e.GetMessage()
		}
	}
	return ""
}

func (r *recovered) nodeOf(t *testing.T, name string) *carav1.Node {
	t.Helper()
	n, _ := state.Get[*carav1.Node](r.db.Cache, name)
	return n
}

func (r *recovered) projectOf(t *testing.T, name string) *carav1.Project {
	t.Helper()
	p, _ := state.Get[*carav1.Project](r.db.Cache, name)
	return p
}
