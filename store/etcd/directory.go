package etcd

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// errOlder means that this server may not take an agent yet.
var errOlder = errors.New("an older version of cara-server is active: connect to it, or upgrade it")

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

func (d *Directory) setServers(_ int64, all []change) {
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

func (d *Directory) setNodes(at int64, all []change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.nodes
	d.nodes = make(map[string]Held, len(all))
	for _, c := range all {
		d.nodes[c.name] = heldOf(c)
	}
	for node, h := range before {
		if h.Since > at { // Hold has been faster
			d.nodes[node] = h
		}
		if h != d.nodes[node] {
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
// the same moment; what a server holds counts while it runs. Since is that of the record in any case.
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
	revision, err := d.replace(ctx, node, d.id+"\n"+instance, l.id)
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := (Held{d.id, instance, revision}); h.Since > d.nodes[node].Since {
		d.nodes[node] = h
		d.noteNode(node)
	}
	return revision, nil
}

// replace writes the record of a node in place of the one that is there now. A request that arrives late, when its agent has already
// connected to another server, changes nothing. While a server of an older version is active, nothing is written: such a server does not
// hear the heartbeats of this one's agents, and would mark their nodes as lost again and again.
func (d *Directory) replace(ctx context.Context, node, value string, lease clientv3.LeaseID) (int64, error) {
	bounded, cancel, err := d.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	key, lock := d.keys.node(node), d.keys.lock()
	have, err := d.readKey(ctx, key)
	if err != nil {
		return 0, err
	}
	for {
		answer, err := d.client.Txn(bounded).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", have.GetModRevision()), clientv3.Compare(clientv3.Value(lock), "=", retiredLock)).
			Then(clientv3.OpPut(key, value, clientv3.WithLease(lease))).
			Else(clientv3.OpGet(key), clientv3.OpGet(lock)).Commit()
		if err != nil {
			return 0, d.failedWrite(ctx, err)
		}
		if answer.Succeeded {
			return answer.Header.Revision, nil
		}
		have = firstKV(answer.Responses[0].GetResponseRange().Kvs)
		if now := firstKV(answer.Responses[1].GetResponseRange().Kvs); string(now.GetValue()) == retiredLock {
			continue // the record has changed meanwhile
		}
		if older, err := d.olderVersion(ctx); err != nil || older != nil {
			return 0, cmp.Or(err, errOlder)
		}
	}
}

// Release removes the record of Hold, unless a newer one has replaced it. It does not wait until that is written, and does nothing while
// an earlier call for the node is not done.
func (d *Directory) Release(node, instance string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.nodes[node]
	if _, busy := d.releasing[node]; busy || h.Server != d.id || h.Instance != instance || d.closed.Err() != nil {
		return
	}
	d.releasing[node] = struct{}{}
	d.running.Go(func() {
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.releasing, node)
		}()
		key := d.keys.node(node)
		same := clientv3.Compare(clientv3.ModRevision(key), "=", h.Since)
		if _, err := d.writeIf(d.closed, same, clientv3.OpDelete(key)); err != nil && d.closed.Err() == nil {
			d.cfg.Logger.Warn("etcd still says that this server has an agent, which has left: it is told again", "node", node, "error", err)
		}
	})
}

// FreeServer frees all that a server holds. The server must have ended. If it still runs, its next write with a lease is refused, and
// it announces itself again.
func (d *Directory) FreeServer(ctx context.Context, server string) error {
	if server == "" || server == d.id {
		return nil
	}
	loops := d.revokeLeasesOf(ctx, server) // first: a caller that follows the directory ends when the server is not in it any more
	kv, err := d.readKey(ctx, d.keys.server(server))
	if err == nil && kv.GetLease() != 0 {
		err = d.revoke(ctx, clientv3.LeaseID(kv.GetLease()))
	}
	return errors.Join(loops, err)
}
