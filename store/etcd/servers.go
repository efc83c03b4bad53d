package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
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
	releasing map[string]struct{} // nodes
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
	d := &Directory{
		Store: s, id: id, value: value, servers: map[string][]byte{}, nodes: map[string]Held{},
		releasing: map[string]struct{}{}, followers: map[*follower]struct{}{},
	}
	if err := d.announce(ctx); err != nil {
		return nil, err
	}
	known := make(chan struct{}, 2)
	tell := sync.OnceFunc(func() { known <- struct{}{} })
	s.running.Go(func() { d.mirror(s.keys.server(""), d.setServers, d.setServer, tell) }) //nolint:contextcheck // it lives as long as the store
	tellNodes := sync.OnceFunc(func() { known <- struct{}{} })
	s.running.Go(func() { d.mirror(s.keys.node(""), d.setNodes, d.setNode, tellNodes) }) //nolint:contextcheck // see above
	s.running.Go(d.stayAnnounced)
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
	l, err := d.grant(ctx, d.keys.server(d.id), string(d.value), announceFor, missing(d.keys.lease(LeaseCopy)))
	if err == nil && l == nil {
		err = errCopying
	}
	if err != nil {
		return err
	}
	if !d.add(l) { // by the empty name: Close releases it
		l.Release() //nolint:contextcheck // also when ctx has ended
		return store.ErrClosed
	}
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
		if d.closing() { // the store is about to close
			return
		}
		d.cfg.Logger.Warn("this server has lost its lease (it was paused, cut off from etcd, or another server took it): it ends the sessions of its agents, and the others do not see it until it is announced again")
		d.mu.Lock()
		delete(d.servers, d.id)
		d.lease = nil
		d.note(func(f *follower) { f.servers = true })
		d.mu.Unlock()
		if !d.announceAgain() {
			return
		}
	}
}

// announceAgain tries until this server is announced. It returns false if the store closes.
func (d *Directory) announceAgain() bool {
	told := ""
	for {
		err := d.announce(d.closed)
		if err == nil {
			d.cfg.Logger.Info("this server is announced again: agents can connect to it")
			return true
		}
		if d.closed.Err() != nil || d.closing() {
			return false
		}
		if told != err.Error() {
			told = err.Error()
			d.cfg.Logger.Warn("this server is not announced: agents cannot connect to it", "error", err)
		}
		if d.pause(d.closed, leaseRetry) != nil {
			return false
		}
	}
}

// mirror follows all keys below a prefix. After an error it reads all of them again.
func (d *Directory) mirror(prefix string, reset func(int64, []change), set func(change), known func()) {
	for {
		if revision, all, err := d.readAll(prefix); err == nil {
			reset(revision, all)
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
	revised int64
}

func (d *Directory) readAll(prefix string) (int64, []change, error) {
	answer, err := d.below(d.closed, prefix, 0)
	if err != nil {
		return 0, nil, err
	}
	all := make([]change, 0, len(answer.Kvs))
	for _, kv := range answer.Kvs {
		all = append(all, change{string(kv.Key[len(prefix):]), kv.Value, kv.ModRevision})
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
			c := change{string(e.Kv.Key[len(prefix):]), e.Kv.Value, e.Kv.ModRevision}
			if e.Type == clientv3.EventTypeDelete {
				c.value = nil
			}
			set(c)
		}
	}
}

// Announced reads the descriptions of all servers that run and reach etcd.
func (s *Store) Announced(ctx context.Context) ([][]byte, error) {
	answer, err := s.below(ctx, s.keys.server(""), maxServers)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, kv := range answer.Kvs {
		out = append(out, kv.Value)
	}
	return out, nil
}
