package apiserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/directory"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// registry is the directory of several servers in one process.
type registry struct {
	ahead atomic.Int64      // of the clocks of all servers
	holds chan chan<- error // if it is not nil, each Hold asks here for leave

	mu      sync.Mutex
	last    int64
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
	return &member{r, id}
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
	id string
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
	return 0, nil
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
