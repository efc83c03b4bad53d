package etcd

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	announceFor = 10 * time.Second // the life of a server's keys after it was lost
	maxServers  = 1000             // descriptions that are read
)

// errCopying means that a program copies all objects, for which no server may run.
var errCopying = errors.New("cara-server migrate or recover copies the data: start the server when that has ended")

// Directory is what the servers of a prefix say about themselves, and which of them has the session of each node's agent. It follows
// etcd until the store closes.
type Directory struct {
	*Store
	id    string
	value []byte

	mu        sync.Mutex
	lease     *Lease // of this server's keys; nil while they are lost
	servers   map[string][]byte
	nodes     map[string]Held
	followers map[*follower]struct{}
}

// Held says which server has the session of a node's agent.
type Held struct {
	Server, Instance string
	Since            int64 // the revision at which it was written
}

// follower collects what has changed for one Follow.
type follower struct {
	nodes   map[string]struct{} // guarded by Directory.mu
	servers bool                // guarded by Directory.mu
	wake    chan struct{}       // has room for one
}

// Join announces a server by its ID and a description, and keeps both in etcd until the store closes. It returns when the directory
// is known.
func (s *Store) Join(ctx context.Context, id string, value []byte) (*Directory, error) {
	d := &Directory{Store: s, id: id, value: value, servers: map[string][]byte{}, nodes: map[string]Held{}, followers: map[*follower]struct{}{}}
	if err := d.announce(ctx); err != nil {
		return nil, err
	}
	known := make(chan struct{}, 2)
	tell := sync.OnceFunc(func() { known <- struct{}{} })
	s.running.Go(func() { d.mirror(s.keys.server(""), d.setServers, d.setServer, tell) }) //nolint:contextcheck // it lives as long as the store
	tellNodes := sync.OnceFunc(func() { known <- struct{}{} })
	s.running.Go(func() { d.mirror(s.keys.node(""), d.setNodes, d.setNode, tellNodes) }) //nolint:contextcheck // see above
	s.running.Go(d.stayAnnounced)                                                        //nolint:contextcheck // see above
	for range 2 {
		select {
		case <-known:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return d, nil
}

// announce writes the description of this server with a new lease.
func (d *Directory) announce(ctx context.Context) error {
	l, err := d.grant(ctx, d.keys.server(d.id), string(d.value), announceFor, clientv3.Compare(clientv3.CreateRevision(d.keys.lease(LeaseCopy)), "=", 0))
	if err == nil && l == nil {
		err = errCopying
	}
	if err != nil {
		return err
	}
	d.leases.add(l) // by the empty name: Close releases it
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lease = l
	d.servers[d.id] = d.value
	d.note(func(f *follower) { f.servers = true })
	return nil
}

// stayAnnounced announces this server again whenever its lease is lost. In between, the directory does not have it.
func (d *Directory) stayAnnounced() {
	for {
		d.mu.Lock()
		l := d.lease
		d.mu.Unlock()
		select {
		case <-l.Lost():
		case <-d.closed.Done():
			return
		}
		if d.leases.closed() { // the store is about to close
			return
		}
		d.cfg.Logger.Warn("this server was paused or cut off from etcd for too long: the others do not see it any more")
		d.mu.Lock()
		delete(d.servers, d.id)
		d.lease = nil
		d.note(func(f *follower) { f.servers = true })
		d.mu.Unlock()
		for d.announce(d.closed) != nil {
			if d.pause(d.closed, leaseRetry) != nil {
				return
			}
		}
	}
}

// mirror follows all keys below a prefix. After an error it reads all of them again.
func (d *Directory) mirror(prefix string, reset func([]change), set func(change), known func()) {
	for {
		if revision, all, err := d.readAll(prefix); err == nil {
			reset(all)
			known()
			d.followKeys(prefix, revision, set)
		}
		if d.pause(d.closed, renewAgain) != nil {
			return
		}
	}
}

// change is the new state of a key. The name has no prefix.
type change struct {
	name    string
	value   []byte // nil if the key is deleted
	created int64
	revised int64
}

func (d *Directory) readAll(prefix string) (int64, []change, error) {
	ctx, cancel, err := d.begin(d.closed)
	if err != nil {
		return 0, nil, err
	}
	defer cancel()
	answer, err := d.client.Get(ctx, prefix, clientv3.WithRange(end(prefix)))
	if err != nil {
		return 0, nil, err
	}
	all := make([]change, 0, len(answer.Kvs))
	for _, kv := range answer.Kvs {
		all = append(all, change{string(kv.Key[len(prefix):]), kv.Value, kv.CreateRevision, kv.ModRevision})
	}
	return answer.Header.Revision, all, nil
}

func (d *Directory) followKeys(prefix string, after int64, set func(change)) {
	ctx, cancel := context.WithCancel(d.closed)
	defer cancel()
	for m := range d.client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithRange(end(prefix)), clientv3.WithRev(after+1)) {
		if m.Err() != nil {
			return
		}
		for _, e := range m.Events {
			c := change{string(e.Kv.Key[len(prefix):]), e.Kv.Value, e.Kv.CreateRevision, e.Kv.ModRevision}
			if e.Type == clientv3.EventTypeDelete {
				c.value = nil
			}
			set(c)
		}
	}
}

// note records something for all that follow. d is locked.
func (d *Directory) note(what func(*follower)) {
	for f := range d.followers {
		what(f)
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (d *Directory) setServers(all []change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := maps.Clone(d.servers)
	for _, c := range all {
		d.applyServer(c)
		delete(before, c.name)
	}
	for id := range before {
		d.applyServer(change{name: id})
	}
	d.note(func(f *follower) { f.servers = true })
}

func (d *Directory) setServer(c change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applyServer(c)
	d.note(func(f *follower) { f.servers = true })
}

// applyServer applies a change. What the directory says about this server depends on its lease alone. d is locked.
func (d *Directory) applyServer(c change) {
	if c.name == d.id {
		return
	}
	_, before := d.servers[c.name]
	if c.value == nil {
		delete(d.servers, c.name)
	} else {
		d.servers[c.name] = c.value
	}
	if before != (c.value != nil) {
		d.noteNodesOf(c.name)
	}
}

// noteNodesOf records that a server has come or gone, and with it what it holds. d is locked.
func (d *Directory) noteNodesOf(server string) {
	for node, h := range d.nodes {
		if h.Server == server {
			d.noteNode(node)
		}
	}
}

func (d *Directory) setNodes(all []change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.nodes
	d.nodes = make(map[string]Held, len(all))
	for _, c := range all {
		d.nodes[c.name] = heldOf(c)
	}
	for node := range before {
		if before[node] != d.nodes[node] {
			d.noteNode(node)
		}
	}
	for node := range d.nodes {
		if before[node] != d.nodes[node] {
			d.noteNode(node)
		}
	}
}

func (d *Directory) setNode(c change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if have := d.nodes[c.name]; have.Since > c.revised {
		return // Hold has been faster
	}
	if c.value == nil {
		delete(d.nodes, c.name)
	} else {
		d.nodes[c.name] = heldOf(c)
	}
	d.noteNode(c.name)
}

// noteNode records that the holder of a node has changed. d is locked.
func (d *Directory) noteNode(node string) {
	d.note(func(f *follower) { f.nodes[node] = struct{}{} })
}

func heldOf(c change) Held {
	server, instance, _ := strings.Cut(string(c.value), "\n")
	return Held{Server: server, Instance: instance, Since: c.revised}
}

// Self returns the ID of this server.
func (d *Directory) Self() string { return d.id }

// Servers returns the descriptions of the servers that run and reach etcd, by ID.
func (d *Directory) Servers() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.servers)
}

// Holder returns which server has the newest session of a node's agent. The two keys of a server that comes or goes are not seen at
// the same moment; what a server holds counts while it runs.
func (d *Directory) Holder(node string) (Held, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.nodes[node]
	if ok {
		_, ok = d.servers[h.Server]
	}
	return h, ok
}

// Follow calls changed with the nodes whose holders may have changed, first with all, and with nil when the servers may have. It
// returns when ctx or the store ends.
func (d *Directory) Follow(ctx context.Context, changed func(nodes []string)) error {
	f := &follower{nodes: map[string]struct{}{}, servers: true, wake: make(chan struct{}, 1)}
	f.wake <- struct{}{}
	d.mu.Lock()
	for node := range d.nodes {
		f.nodes[node] = struct{}{}
	}
	d.followers[f] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.followers, f)
	}()
	for {
		select {
		case <-f.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-d.closed.Done():
			return d.closed.Err()
		}
		d.mu.Lock()
		nodes, servers := slices.Sorted(maps.Keys(f.nodes)), f.servers
		clear(f.nodes)
		f.servers = false
		d.mu.Unlock()
		if servers {
			changed(nil)
		}
		if len(nodes) > 0 {
			changed(nodes)
		}
	}
}

// Hold records that this server has the session of a node's agent, and returns the revision of the record. A Watch yields a change
// without events for it, so a reader that has reached that revision has all that was written before.
func (d *Directory) Hold(ctx context.Context, node, instance string) (int64, error) {
	d.mu.Lock()
	l := d.lease
	d.mu.Unlock()
	if l == nil {
		return 0, errors.New("this server was cut off from etcd and is not announced again yet: use another one, or try again in some seconds")
	}
	bounded, cancel, err := d.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	answer, err := d.client.Put(bounded, d.keys.node(node), d.id+"\n"+instance, clientv3.WithLease(l.id))
	if err != nil {
		return 0, d.failedWrite(ctx, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := (Held{d.id, instance, answer.Header.Revision}); h.Since > d.nodes[node].Since {
		d.nodes[node] = h
		d.noteNode(node)
	}
	return answer.Header.Revision, nil
}

// Release removes the record of Hold, unless a newer one has replaced it. It does not wait until that is written.
func (d *Directory) Release(node, instance string) {
	d.mu.Lock()
	h := d.nodes[node]
	d.mu.Unlock()
	if h.Server != d.id || h.Instance != instance || d.closed.Err() != nil {
		return
	}
	d.running.Go(func() {
		ctx, cancel, err := d.begin(d.closed)
		if err != nil {
			return
		}
		defer cancel()
		key := d.keys.node(node)
		same := clientv3.Compare(clientv3.ModRevision(key), "=", h.Since)
		if _, err := d.client.Txn(ctx).If(same).Then(clientv3.OpDelete(key)).Commit(); err != nil && d.closed.Err() == nil {
			d.cfg.Logger.Warn("etcd still says that this server has an agent, until the agent connects again", "node", node, "error", explain(d.closed, err))
		}
	})
}

// Gone frees all that a server holds, which is known to have ended. If it is still there, its next write with a lease is refused, and it
// announces itself again.
func (d *Directory) Gone(ctx context.Context, server string) error {
	if server == "" || server == d.id {
		return nil
	}
	kv, err := d.readKey(ctx, d.keys.server(server))
	if err == nil && kv.GetLease() != 0 {
		err = d.revoke(ctx, clientv3.LeaseID(kv.GetLease()))
	}
	return errors.Join(err, d.Dispossess(ctx, server))
}

// Announced reads the descriptions of all servers that run and reach etcd.
func (s *Store) Announced(ctx context.Context) ([][]byte, error) {
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	all := s.keys.server("")
	answer, err := s.client.Get(bounded, all, clientv3.WithRange(end(all)), clientv3.WithLimit(maxServers))
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	var out [][]byte
	for _, kv := range answer.Kvs {
		out = append(out, kv.Value)
	}
	return out, nil
}
