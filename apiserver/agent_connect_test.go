package apiserver

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// shop is a project with an ingress host, one secret value in an environment variable, one in a file, and a registry.
func shop(name string) *carav1.Project {
	ref := func(key string) *carav1.SecretKeyRef { return &carav1.SecretKeyRef{Name: "db", Key: key} }
	p := web(name)
	p.Spec.Services[0].Env = []*carav1.EnvVar{{Name: "PASSWORD", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: ref("password")}}}
	p.Spec.Services[0].Files = []*carav1.File{{Path: "/etc/user", SecretKeyRef: ref("user")}}
	p.Spec.ImagePullSecrets = []string{"registry"}
	p.Spec.Ingress = []*carav1.Ingress{{
		Name: "web", Host: name, Target: &carav1.IngressTarget{Service: "web", Port: 80}, Access: &carav1.IngressAccess{Scope: "Internal"},
	}}
	return p
}

// report sends an agent's report about a project.
func (a *fakeAgent) report(p *carav1.Assignment, phase string) error {
	a.t.Helper()
	_, err := carav1.NewProjectServiceClient(a.conn).UpdateProjectStatus(a.t.Context(), &carav1.UpdateProjectStatusRequest{
		Name: p.GetProject().GetMetadata().GetName(), Uid: p.GetProject().GetMetadata().GetUid(),
		Epoch: p.GetProject().GetStatus().GetEpoch(), ObservedGeneration: p.GetProject().GetMetadata().GetGeneration(), Phase: phase,
	})
	return err
}

func TestAssignments(t *testing.T) {
	c := newCluster(t, nil)
	c.secret(t, "db", "", map[string]string{"password": "p1", "user": "u1", "unused": "never-sent"})
	c.secret(t, "other", "", map[string]string{"k": "never-sent"})
	c.secret(t, "registry", "registry", map[string]string{"server": "registry.test", "username": "me", "password": "rp"})
	conn1, conn2 := c.node(t, "n1"), c.node(t, "n2")
	one := connectAgent(t, conn1, "a")
	if assigned, routes := one.synced(); len(assigned) != 0 || !routes.GetFull() {
		t.Fatalf("a new node has %v, routes %v", assigned, routes)
	}
	two := connectAgent(t, conn2, "b")
	two.synced()

	c.create(t, shop("shop"))
	c.bind(t, "shop", "n1")
	first := one.assignment()
	want := map[string]string{"db/password": "p1", "db/user": "u1"}
	if len(first.GetSecrets()) != len(want) {
		t.Errorf("secrets %v", first.GetSecrets())
	}
	for name, value := range want {
		if string(first.GetSecrets()[name]) != value {
			t.Errorf("secret %s is %q", name, first.GetSecrets()[name])
		}
	}
	if auth := first.GetRegistryAuth()["registry.test"]; auth.GetUsername() != "me" || auth.GetPassword() != "rp" {
		t.Errorf("registry auth %v", first.GetRegistryAuth())
	}
	if st := first.GetProject().GetStatus(); st.GetEpoch() != 1 || st.GetPhase() != api.PhaseScheduled {
		t.Errorf("status %v", st)
	}

	// Every node gets the host's route before its service answers.
	placed := func(r *carav1.Routes) bool { return len(r.GetUpserts()) == 1 && r.GetUpserts()[0].GetNode() == "n1" }
	for _, agent := range []*fakeAgent{one, two} {
		r := agent.routes(placed).GetUpserts()[0]
		if r.GetHost() != "shop.dev.example.test" || r.GetIngressAddress() != "192.0.2.1:8081" || r.GetPort() != 80 {
			t.Errorf("route %v", r)
		}
	}

	// Another node's agent may not write it, and has not received it.
	testproblem.Want(t, (&fakeAgent{t: t, conn: conn2}).report(first, api.PhaseRunning), codes.PermissionDenied, "")
	// The agent's own report is not sent back.
	if err := one.report(first, api.PhaseRunning); err != nil {
		t.Fatal(err)
	}
	// A changed secret is sent with its project, if the project uses it.
	c.secret(t, "other", "", map[string]string{"k": "v2"})
	c.secret(t, "db", "", map[string]string{"password": "p2", "user": "u1"})
	if again := one.assignment(); string(again.GetSecrets()["db/password"]) != "p2" {
		t.Errorf("after the change: %v", again.GetSecrets())
	}
	// A changed spec is sent; the host's route stays.
	changed := shop("shop")
	changed.Spec.Services[0].Image = "nginx:2"
	projects := carav1.NewProjectServiceClient(c.admin(t))
	if _, err := projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: changed}); err != nil {
		t.Fatal(err)
	}
	if next := one.assignment(); next.GetProject().GetMetadata().GetGeneration() != 2 || next.GetProject().GetSpec().GetServices()[0].GetImage() != "nginx:2" {
		t.Errorf("after the change: %v", next.GetProject())
	}
	// A deletion is sent as Terminating without secrets, and its end as Unassigned.
	if _, err := projects.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop", NoWait: true}); err != nil {
		t.Fatal(err)
	}
	shut := func(r *carav1.Routes) bool {
		return slices.Equal(r.GetRemovedHosts(), []string{"shop.dev.example.test"})
	}
	two.routes(shut)
	last := one.assignment()
	if last.GetProject().GetStatus().GetPhase() != api.PhaseTerminating || len(last.GetSecrets()) != 0 {
		t.Errorf("on deletion: %v", last)
	}
	if err := one.report(last, api.PhaseTerminated); err != nil {
		t.Fatal(err)
	}
	for {
		m := one.next()
		if u := m.GetUnassigned(); u != nil {
			if u.GetUid() != first.GetProject().GetMetadata().GetUid() {
				t.Errorf("unassigned %v", u)
			}
			break
		}
		if m.GetRoutes() == nil {
			t.Fatalf("unexpected %v", m)
		}
	}
	for len(two.got) > 0 {
		if m := <-two.got; m.GetRoutes() == nil {
			t.Errorf("the other node heard %v", m)
		}
	}
}

// TestAssignmentsAtConnect: first all of the node's projects, whatever their phase; then all routes; then Synced.
func TestAssignmentsAtConnect(t *testing.T) {
	c := newCluster(t, nil)
	conn := c.node(t, "n1")
	c.node(t, "n2")
	for _, name := range []string{"a", "b", "c"} {
		c.create(t, shop(name))
	}
	c.bind(t, "a", "n1")
	c.bind(t, "b", "n2")
	agent := connectAgent(t, conn, "x")
	assigned, routes := agent.synced()
	if len(assigned) != 1 || assigned[0].GetProject().GetMetadata().GetName() != "a" {
		t.Errorf("assigned %v", assigned)
	}
	var leads []string
	for _, r := range routes.GetUpserts() {
		leads = append(leads, r.GetHost()+" "+r.GetNode())
	}
	if want := []string{"a.dev.example.test n1", "b.dev.example.test n2", "c.dev.example.test "}; !slices.Equal(leads, want) {
		t.Errorf("routes %q, want %q", leads, want)
	}
	if len(assigned[0].GetSecrets()) != 0 {
		t.Errorf("secrets that do not exist: %v", assigned[0].GetSecrets())
	}
	// The missing secret is sent with the assignment as soon as it exists.
	c.secret(t, "db", "", map[string]string{"password": "p", "user": "u"})
	if again := agent.assignment(); string(again.GetSecrets()["db/user"]) != "u" {
		t.Errorf("after the secret was made: %v", again.GetSecrets())
	}
	// Evicted: no longer assigned to this node.
	p, _ := state.Get[*carav1.Project](c.db.Cache, "a")
	loop, err := c.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	_, err = carav1.NewProjectServiceClient(loop).ScheduleProject(t.Context(), &carav1.ScheduleProjectRequest{
		Name: "a", ResourceVersion: p.GetMetadata().GetResourceVersion(), Action: "Evict", Reason: "Draining", Message: "n1 drains",
	})
	if err != nil {
		t.Fatal(err)
	}
	if u := agent.next().GetUnassigned(); u.GetName() != "a" {
		t.Errorf("unassigned %v", u)
	}
}

func TestTakeover(t *testing.T) {
	c := newCluster(t, nil)
	conn := c.node(t, "n1")
	older := connectAgent(t, conn, "first")
	older.synced()
	newer := connectAgent(t, conn, "second")
	newer.synced()
	err := older.ended()
	testproblem.Want(t, err, codes.Aborted, api.TitleTakenOver)
	if !strings.Contains(err.Error(), "second") {
		t.Errorf("%v does not name the newer agent", err)
	}
	same := connectAgent(t, conn, "second")
	same.synced()
	testproblem.Want(t, newer.ended(), codes.Unavailable, "")
	eventually(t, "one session", func() bool { return c.agents.Sessions.Of("n1") != nil })
}

func TestConnectRefusesAnAgentThatDoesNotSayWhoItIs(t *testing.T) {
	c := newCluster(t, nil)
	stream, err := carav1.NewNodeServiceClient(c.node(t, "n1")).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&carav1.ConnectRequest{}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	testproblem.Want(t, err, codes.InvalidArgument, "")
}

// TestFallBehind: an agent that stops reading for longer than the recent changes cover gets the newest state later, and not
// every step.
func TestFallBehind(t *testing.T) {
	c := newCluster(t, func(cfg *Config) { cfg.RecentChanges = 8 })
	conn := c.node(t, "n1")
	agent := connectAgent(t, conn, "a")
	agent.synced()
	c.create(t, shop("shop"))
	c.bind(t, "shop", "n1")
	agent.assignment()

	me := c.agents.Sessions.Of("n1")
	me.Sending.Lock() // as if the agent did not read
	projects := carav1.NewProjectServiceClient(c.admin(t))
	var last *carav1.Project
	for i := range 60 {
		p := shop("shop")
		p.Spec.Services[0].Image = "nginx:" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		var err error
		if last, err = projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p}); err != nil {
			me.Sending.Unlock()
			t.Fatal(err)
		}
	}
	me.Sending.Unlock()
	heard := 0
	for {
		a := agent.assignment()
		heard++
		if proto.Equal(a.GetProject().GetSpec(), last.GetSpec()) {
			break
		}
	}
	if heard > 3 {
		t.Errorf("%d messages for 60 changes that were not read", heard)
	}
}

func TestHeartbeats(t *testing.T) {
	begun, passed := time.Now(), atomic.Int64{}
	clock := func() time.Time { return begun.Add(time.Duration(passed.Load())) }
	c := newCluster(t, func(cfg *Config) { cfg.Now = clock })
	conn := c.node(t, "n1")
	nodes := carav1.NewNodeServiceClient(c.admin(t))
	get := func() *carav1.Node {
		t.Helper()
		n, err := nodes.GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	agent := connectAgent(t, conn, "a")
	agent.synced()
	n := get()
	if n.GetStatus().GetState() != api.NodeReady || !n.GetStatus().GetLastHeartbeat().AsTime().Equal(clock()) || n.GetStatus().GetInfo().GetPlatform() != "linux/amd64" {
		t.Fatalf("after the first heartbeat: %v", n.GetStatus())
	}
	// Another heartbeat with less free disk writes nothing, but answers show it.
	beat := func(hb *carav1.Heartbeat) {
		t.Helper()
		passed.Add(int64(5 * time.Second))
		if hb == nil {
			hb = &carav1.Heartbeat{}
		}
		if err := agent.stream.Send(&carav1.ConnectRequest{Heartbeat: hb}); err != nil {
			t.Fatal(err)
		}
		until(t, "the heartbeat is noted", func() bool {
			st := get().GetStatus()
			for _, c := range hb.GetConditions() {
				if api.FindCondition(st.GetConditions(), c.GetType()).GetReason() != c.GetReason() {
					return false
				}
			}
			return st.GetLastHeartbeat().AsTime().Equal(clock())
		})
	}
	info := proto.CloneOf(n.GetStatus().GetInfo())
	info.Capacity.DiskFree = "9Gi"
	beat(&carav1.Heartbeat{Info: info})
	again := get()
	if again.GetMetadata().GetResourceVersion() != n.GetMetadata().GetResourceVersion() {
		t.Error("a heartbeat was written")
	}
	if !again.GetStatus().GetLastHeartbeat().AsTime().Equal(clock()) || again.GetStatus().GetInfo().GetCapacity().GetDiskFree() != "9Gi" {
		t.Errorf("a heartbeat is not seen: %v", again.GetStatus())
	}
	beat(&carav1.Heartbeat{Conditions: []*carav1.Condition{{Type: api.CondEngineReady, Status: api.StatusFalse, Reason: "NoAnswer", Message: "docker is down"}}})
	if c := api.FindCondition(get().GetStatus().GetConditions(), api.CondEngineReady); c.GetReason() != "NoAnswer" {
		t.Errorf("condition %v", c)
	}

	// NotReady is decided on the last heartbeat that the scheduler saw.
	loop, err := c.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	seen := get().GetStatus().GetLastHeartbeat()
	beat(nil)
	mark := &carav1.MarkNodeNotReadyRequest{Name: "n1", LastHeartbeat: seen, Message: "no heartbeat for 20s"}
	_, err = carav1.NewNodeServiceClient(loop).MarkNodeNotReady(t.Context(), mark)
	testproblem.Want(t, err, codes.Aborted, "")
	c.create(t, web("shop"))
	c.bind(t, "shop", "n1")
	mark.LastHeartbeat = get().GetStatus().GetLastHeartbeat()
	if _, err := carav1.NewNodeServiceClient(loop).MarkNodeNotReady(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	n = get()
	if n.GetStatus().GetState() != api.NodeNotReady || n.GetStatus().GetProjects() != 1 {
		t.Errorf("after the mark: %v", n.GetStatus())
	}
	p, err := carav1.NewProjectServiceClient(c.admin(t)).GetProject(t.Context(), &carav1.GetRequest{Name: "shop"})
	if err != nil || !p.GetStatus().GetLastSeen().AsTime().Equal(mark.GetLastHeartbeat().AsTime()) {
		t.Errorf("last seen %v, %v", p.GetStatus().GetLastSeen(), err)
	}
	if _, err := carav1.NewNodeServiceClient(conn).Heartbeat(t.Context(), &carav1.HeartbeatRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	if n = get(); n.GetStatus().GetState() != api.NodeNotReady || !n.GetStatus().GetLastHeartbeat().AsTime().Equal(mark.GetLastHeartbeat().AsTime()) {
		t.Errorf("after a heartbeat that did not come over the agent's connection: %v", n.GetStatus())
	}
	beat(nil)
	until(t, "the node is Ready", func() bool { return get().GetStatus().GetState() == api.NodeReady })
	n = get()
	n.Spec = &carav1.NodeSpec{Draining: true}
	n.Metadata = &carav1.ObjectMeta{Name: "n1"}
	if n, err = nodes.PutNode(t.Context(), &carav1.PutNodeRequest{Node: n}); err != nil || n.GetStatus().GetState() != api.NodeDraining {
		t.Errorf("drain: %v, %v", n.GetStatus(), err)
	}
}

// TestAHeartbeatOverRESTMakesNoNodeReady: it stores the node's report but does not change the state.
func TestAHeartbeatOverRESTMakesNoNodeReady(t *testing.T) {
	c := newCluster(t, nil)
	conn := c.node(t, "n1")
	_, err := carav1.NewNodeServiceClient(conn).Heartbeat(t.Context(), &carav1.HeartbeatRequest{
		Name: "n1", Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{Platform: "linux/arm64"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := carav1.NewNodeServiceClient(c.admin(t)).GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
	st := n.GetStatus()
	if err != nil || st.GetState() != api.NodeNotReady || st.GetLastHeartbeat() != nil || st.GetInfo().GetPlatform() != "linux/arm64" ||
		api.IsTrue(st.GetConditions(), api.CondReady) {
		t.Errorf("the node is %v (%v), want NotReady, never heard of, with its platform", st, err)
	}
	connectAgent(t, conn, "a").synced()
	n, err = carav1.NewNodeServiceClient(c.admin(t)).GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
	if err != nil || n.GetStatus().GetState() != api.NodeReady {
		t.Errorf("with an agent the node is %v (%v), want Ready", n.GetStatus(), err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// TestAgentsLeaveAServerThatStops: an agent hears at once that the server stops, and connects to another one.
func TestAgentsLeaveAServerThatStops(t *testing.T) {
	c := newCluster(t, nil)
	agent := connectAgent(t, c.node(t, "n1"), "a")
	agent.synced()
	go c.stop()
	if err, want := agent.ended(), api.ProblemOf(state.ErrDraining()).GetDetail(); api.ProblemOf(err).GetDetail() != want {
		t.Errorf("the stream ended with %v, want %q", err, want)
	}
}
