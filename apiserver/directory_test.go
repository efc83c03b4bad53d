package apiserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/directory"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
	"github.com/caravanserai/cara/store"
)

// registry is the directory of several servers in one process.
type registry struct {
	ahead atomic.Int64      // of the clocks of all servers
	holds chan chan<- error // if it is not nil, each Hold asks here for leave

	mu      sync.Mutex
	last    int64
	written int64 // the revision of the newest write to the store
	servers map[string]*carav1.Server
	holders map[string]directory.Holder
	events  []string // nodes that have changed; "" is the servers
	changed chan struct{}
	gone    []string // the calls of FreeServer
}

func newRegistry() *registry {
	return &registry{servers: map[string]*carav1.Server{}, holders: map[string]directory.Holder{}, changed: make(chan struct{})}
}

func (r *registry) note(names ...string) {
	r.events = append(r.events, names...)
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *registry) add(id, address string) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers[id] = &carav1.Server{Id: id, Address: address}
	r.note("")
	return &member{registry: r, id: id}
}

// lose removes a server and all that it holds, as the end of its lease does.
func (r *registry) lose(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.servers, id)
	gone := []string{""}
	for node, h := range r.holders {
		if h.Server == id {
			delete(r.holders, node)
			gone = append(gone, node)
		}
	}
	r.note(gone...)
}

// member is the registry as one server sees it.
type member struct {
	*registry
	id   string
	late atomic.Bool // its copy of the holders shows none
}

var _ directory.Directory = (*member)(nil)

func (m *member) Self() string { return m.id }

func (m *member) Servers() map[string]*carav1.Server {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.servers)
}

func (m *member) Holder(node string) (directory.Holder, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.late.Load() {
		return directory.Holder{}, false
	}
	h, ok := m.holders[node]
	return h, ok
}

func (m *member) Follow(ctx context.Context, changed func(nodes []string)) error {
	m.mu.Lock()
	at, first := len(m.events), slices.Collect(maps.Keys(m.holders))
	m.mu.Unlock()
	changed(nil)
	changed(append([]string{}, first...))
	for {
		m.mu.Lock()
		more, wait := slices.Clone(m.events[at:]), m.changed
		at = len(m.events)
		m.mu.Unlock()
		nodes := []string{}
		for _, name := range more {
			if name == "" {
				changed(nil)
			} else {
				nodes = append(nodes, name)
			}
		}
		if len(nodes) > 0 {
			changed(nodes)
		}
		if len(more) > 0 {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *member) Hold(_ context.Context, node, instance string) (int64, error) {
	if m.holds != nil {
		leave := make(chan error)
		m.holds <- leave
		if err := <-leave; err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.servers[m.id] == nil {
		return 0, api.Unavailable("server %s is not in the directory", m.id)
	}
	m.last++
	m.holders[node] = directory.Holder{Server: m.id, Instance: instance, Since: m.last}
	m.note(node)
	return m.written, nil
}

func (m *member) Release(node, instance string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.holders[node]; h.Server == m.id && h.Instance == instance {
		delete(m.holders, node)
		m.note(node)
	}
}

func (m *member) FreeServer(_ context.Context, server string) error {
	m.mu.Lock()
	m.gone = append(m.gone, m.id+" says "+server)
	m.mu.Unlock()
	m.lose(server)
	return nil
}

// recordStore keeps the records of agents beside a store, as etcd does.
type recordStore struct {
	store.Store
	r *registry
}

func (s recordStore) Commit(ctx context.Context, t store.Txn) (int64, error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if t.Agent.Node != "" && s.r.holders[t.Agent.Node].Since != t.Agent.Modified {
		return 0, store.ErrAgentMoved
	}
	t.Agent = store.AgentRecord{}
	revision, err := s.Store.Commit(ctx, t)
	s.r.written = max(s.r.written, revision)
	return revision, err
}

// newServers starts several servers with one store and one identity, each with a listener of its own.
func newServers(t *testing.T, ids ...string) (map[string]*cluster, *registry) {
	t.Helper()
	first := newCluster(t, nil) // opens the store, and makes the first tokens
	r, all := newRegistry(), map[string]*cluster{}
	for _, id := range ids {
		all[id] = first.another(t, r, id, first.db.Store)
	}
	for _, c := range all {
		eventually(t, "the servers hear of each other", c.peers.HearsAll)
	}
	return all, r
}

// TestAMovedAgentGetsTheNewestState: a server that is behind the earlier one of an agent sends no state before it has caught up.
func TestAMovedAgentGetsTheNewestState(t *testing.T) {
	a, b, late := newLatePair(t)
	conns := joined(t, "n1", a, b)
	agent := connectAgent(t, conns[0], "1")
	agent.synced()
	if err := b.db.Cache.Wait(t.Context(), a.db.Cache.Revision()); err != nil {
		t.Fatal(err)
	}
	release := late.hold()
	a.create(t, web("shop"))
	a.bind(t, "shop", "n1")
	agent.assignment()
	again := connectAgent(t, conns[1], "1")
	testproblem.Want(t, agent.ended(), codes.Unavailable, "") // b has it
	release()
	if assigned, _ := again.synced(); len(assigned) != 1 {
		t.Errorf("the agent gets %v from the server that was behind", assigned)
	}
}

// TestALateDirectoryLosesNoNode: a server that already has a node as Ready, and has not heard yet which server its agent has connected to, cannot
// make it NotReady again.
func TestALateDirectoryLosesNoNode(t *testing.T) {
	all, _ := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	seen := a.cfg.Directory.(*member)
	seen.late.Store(true)
	agent := connectAgent(t, b.node(t, "n1"), "1")
	agent.synced()
	nodes := carav1.NewNodeServiceClient(a.admin(t))
	var n1 *carav1.Node
	eventually(t, "a knows the heartbeat of n1", func() bool {
		n, err := nodes.GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
		n1 = n
		return err == nil && n.GetStatus().GetState() == api.NodeReady && n.GetStatus().GetLastHeartbeat() != nil
	})
	loop, err := a.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	scheduler := carav1.NewNodeServiceClient(loop)
	mark := &carav1.MarkNodeNotReadyRequest{Name: "n1", LastHeartbeat: n1.GetStatus().GetLastHeartbeat(), Message: "no heartbeat for 20s"}
	_, err = scheduler.MarkNodeNotReady(t.Context(), mark)
	testproblem.Want(t, err, codes.Aborted, "")
	if n, err := nodes.GetNode(t.Context(), &carav1.GetRequest{Name: "n1"}); err != nil || n.GetStatus().GetState() != api.NodeReady {
		t.Errorf("the node is %s, %v", n.GetStatus().GetState(), err)
	}
}
