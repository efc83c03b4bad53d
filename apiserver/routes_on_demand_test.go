package apiserver

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

func (a *fakeAgent) asks(hosts ...string) { a.says(&carav1.ConnectRequest{AskHosts: hosts}) }

func (a *fakeAgent) says(m *carav1.ConnectRequest) {
	a.t.Helper()
	if err := a.stream.Send(m); err != nil {
		a.t.Fatal(err)
	}
}

// hostsIn returns all hosts that a message mentions, except those that it removes.
func hostsIn(m *carav1.Routes) (all []string) {
	for _, r := range m.GetUpserts() {
		all = append(all, r.GetHost())
	}
	for _, h := range slices.Concat(m.GetHosts(), m.GetFeatureHosts()) {
		all = append(all, h.GetHost())
	}
	slices.Sort(all)
	return all
}

// knows returns a condition for a change that has these hosts.
func knows(hosts ...string) func(*carav1.Routes) bool {
	return func(m *carav1.Routes) bool { return slices.Equal(hostsIn(m), hosts) }
}

func unknown(host string) func(*carav1.Routes) bool {
	return func(m *carav1.Routes) bool { return slices.Contains(m.GetUnknownHosts(), host) }
}

// TestRoutesOnDemand: an agent that asks for routes gets those of its node, and of the hosts that it names, and each change of them
// until it forgets them.
func TestRoutesOnDemand(t *testing.T) {
	c := newCluster(t, nil)
	conn := c.node(t, "n1")
	c.node(t, "n2")
	for _, name := range []string{"mine", "known", "other", "asked"} {
		c.create(t, at(name, name+".test"))
	}
	c.bind(t, "mine", "n1")
	c.bind(t, "known", "n2")
	agent := connectAgentAt(t, conn, "a", "192.0.2.1:8081", api.CapabilityIngress, api.CapabilityRoutesOnDemand)
	if w := agent.next().GetWelcome(); !w.GetRoutesOnDemand() {
		t.Fatalf("the server answers no questions: %v", w)
	}
	all := agent.routes((*carav1.Routes).GetFull)
	if got := hostsIn(all); !slices.Equal(got, []string{"mine.test"}) || len(all.GetPeers()) != 2 {
		t.Fatalf("the agent got %v", all)
	}
	agent.asks("asked.test", "nothing.test")
	answer := agent.routes(knows("asked.test"))
	if !slices.Equal(answer.GetUnknownHosts(), []string{"nothing.test"}) {
		t.Errorf("the answer is %v", answer)
	}
	// Changes of what the agent knows come without a question: also of a host that did not exist, and of a project that arrives here.
	c.create(t, at("nothing", "nothing.test"))
	agent.routes(knows("nothing.test"))
	c.bind(t, "other", "n1")
	agent.routes(knows("other.test"))
	// The end of a host is told. Hosts that were not asked for are not.
	projects := carav1.NewProjectServiceClient(c.admin(t))
	for _, name := range []string{"known", "asked"} {
		if _, err := projects.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: name, NoWait: true}); err != nil {
			t.Fatal(err)
		}
	}
	if m := agent.routes(unknown("asked.test")); len(hostsIn(m))+len(m.GetRemovedHosts()) > 0 || len(m.GetUnknownHosts()) != 1 {
		t.Errorf("the deletions are %v", m)
	}
	// What is forgotten is not told any more, but for the hosts of the node's own projects.
	agent.says(&carav1.ConnectRequest{ForgetHosts: []string{"nothing.test", "other.test"}, AskHosts: []string{"mark.test"}})
	agent.routes(unknown("mark.test"))
	for _, name := range []string{"nothing", "other"} {
		if _, err := projects.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: name, NoWait: true}); err != nil {
			t.Fatal(err)
		}
	}
	if m := agent.routes(unknown("other.test")); len(m.GetUnknownHosts()) != 1 {
		t.Errorf("a forgotten host is told: %v", m)
	}
}

// TestMovingRoutes: a route says that its project moves to another node.
func TestMovingRoutes(t *testing.T) {
	c := newCluster(t, nil)
	one := connectAgent(t, c.node(t, "n1"), "a")
	one.synced()
	c.node(t, "n2")
	front := connectAgentAt(t, c.node(t, "n3"), "c", "192.0.2.3:8081", api.CapabilityIngress, api.CapabilityRoutesOnDemand)
	c.create(t, at("shop", "shop.test"))
	c.bind(t, "shop", "n1")
	if err := one.report(one.assignment(), api.PhaseRunning); err != nil {
		t.Fatal(err)
	}
	leads := func(node string, moving bool) func(*carav1.Routes) bool {
		return func(m *carav1.Routes) bool {
			return len(m.GetUpserts()) == 1 && m.GetUpserts()[0].GetNode() == node && m.GetUpserts()[0].GetMoving() == moving
		}
	}
	front.asks("shop.test")
	front.routes(leads("n1", false))
	c.moveShop(t, "n2")
	front.routes(leads("n2", true))
}

// TestRoutesOfEarlierConnection: an agent that connects again names what it knows. An agent without ingress gets no routes.
func TestRoutesOfEarlierConnection(t *testing.T) {
	c := newCluster(t, nil)
	conn, bare := c.node(t, "n1"), c.node(t, "n2")
	for _, name := range []string{"mine", "known", "other"} {
		c.create(t, at(name, name+".test"))
	}
	c.bind(t, "mine", "n1")
	c.bind(t, "other", "n2")
	stream, err := carav1.NewNodeServiceClient(conn).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	agent := &fakeAgent{t: t, conn: conn, stream: stream, got: make(chan *carav1.ConnectResponse, 1000), failed: make(chan error, 1)}
	agent.says(&carav1.ConnectRequest{
		InstanceId: "a", Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{}}, AskHosts: []string{"known.test", "gone.test"},
		Capabilities: []string{api.CapabilityIngress, api.CapabilityRoutesOnDemand},
	})
	go agent.read()
	if all := agent.routes((*carav1.Routes).GetFull); !slices.Equal(hostsIn(all), []string{"known.test", "mine.test"}) || !slices.Equal(all.GetUnknownHosts(), []string{"gone.test"}) {
		t.Errorf("the agent got %v", all)
	}
	none := connectAgentAt(t, bare, "b", "", api.CapabilityRoutesOnDemand)
	if all := none.routes((*carav1.Routes).GetFull); len(hostsIn(all)) > 0 || len(all.GetPeers()) != 2 {
		t.Errorf("an agent without ingress got %v", all)
	}
	many := make([]string, 12001)
	for i := range many {
		many[i] = "x.test"
	}
	agent.asks(many...)
	testproblem.Want(t, agent.ended(), codes.InvalidArgument, api.TitleInvalid)
}

// TestCredentialsOnDemand: certificates and passwords come before the routes that need them, and go with the last of them.
func TestCredentialsOnDemand(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, nil)
	c.site(t, ca, time.Now().Add(time.Hour), "a.test", "b.test")
	c.secret(t, "people", api.SecretBasicAuth, map[string]string{"users": "ann:" + hash})
	c.create(t, public("one", "a.test"))
	c.create(t, public("two", "b.test"))
	c.create(t, at("three", "c.test"))
	agent := connectAgentAt(t, c.node(t, "n1"), "a", "192.0.2.1:8081", api.CapabilityIngress, api.CapabilityPublicIngress, api.CapabilityRoutesOnDemand)
	if all := agent.credentials((*carav1.Credentials).GetFull); len(all.GetCertificates())+len(all.GetPasswordLists()) > 0 {
		t.Fatalf("the agent has %d certificates and %d lists without a host", len(all.GetCertificates()), len(all.GetPasswordLists()))
	}
	agent.routes((*carav1.Routes).GetFull)
	agent.asks("c.test")
	agent.routes(knows("c.test")) // and no credentials before it
	agent.asks("a.test")
	if got := agent.next().GetCredentials(); len(got.GetCertificates()) != 1 || len(got.GetPasswordLists()) != 1 {
		t.Fatalf("before the routes came %v", got)
	}
	agent.routes(knows("a.test"))
	agent.asks("b.test")
	if got := agent.next(); got.GetRoutes() == nil {
		t.Errorf("the credentials came again: %v", got)
	}
	agent.says(&carav1.ConnectRequest{ForgetHosts: []string{"a.test"}})
	c.site(t, ca, time.Now().Add(time.Hour), "a.test", "b.test", "new.test")
	agent.credentials(func(m *carav1.Credentials) bool { return len(m.GetCertificates()) == 1 })
	agent.says(&carav1.ConnectRequest{ForgetHosts: []string{"b.test"}})
	agent.credentials(func(m *carav1.Credentials) bool {
		return slices.Equal(m.GetRemovedCertificates(), []string{"secret/site"}) && slices.Equal(m.GetRemovedPasswordLists(), []string{"people"})
	})
}
