// Package fakecluster is a cluster in memory for tests of the loops: objects with revisions, changed in transactions,
// watched as the server's watch tells them. A test registers on its channel the services that its loop calls, written
// over Update, and asks afterwards what there is and who called what.
//
// It is honest where loops rely on the server: every write raises the revision and stamps it on the object, a
// transaction becomes visible whole, and a watch tells it after it was committed.
package fakecluster

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Cluster is the objects there are.
type Cluster struct {
	carav1.UnimplementedWatchServiceServer

	mu       sync.Mutex
	revision int64
	objects  map[string]proto.Message // by kind/name
	log      []*carav1.WatchResponse
	more     chan struct{} // closed and created again with each transaction
	calls    map[string]int
	refuse   map[string]error
	held     bool // watches tell nothing
}

// New returns an empty cluster.
func New() *Cluster {
	return &Cluster{objects: map[string]proto.Message{}, more: make(chan struct{}), calls: map[string]int{}, refuse: map[string]error{}}
}

// Channel returns a connection that serves the watch; a test registers the other services on it.
func (c *Cluster) Channel() *inprocgrpc.Channel {
	ch := new(inprocgrpc.Channel).WithServerUnaryInterceptor(c.count)
	carav1.RegisterWatchServiceServer(ch, c)
	return ch
}

func (c *Cluster) count(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	c.mu.Lock()
	c.calls[method]++
	err := c.refuse[method]
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// Refuse makes every call of a method fail with err, or with nil no longer.
func (c *Cluster) Refuse(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse[method] = err
}

// Hold makes every watch silent, or lets it go on where it was.
func (c *Cluster) Hold(held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = held
	close(c.more)
	c.more = make(chan struct{})
}

// TakeCalls returns how often each method was called since the last time it was asked.
func (c *Cluster) TakeCalls() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = map[string]int{}
	return calls
}

// Tx is one transaction.
type Tx struct {
	c       *Cluster
	changes []*carav1.Change
	written []proto.Message // as the caller has them
}

// Update runs change as one transaction. With an error nothing must have been written before.
func (c *Cluster) Update(change func(*Tx) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx := &Tx{c: c}
	if err := change(tx); err != nil || len(tx.changes) == 0 {
		return err
	}
	c.revision++
	for _, ch := range tx.changes {
		m := api.Unwrap(ch.Object)
		key := api.Kind(m) + "/" + api.Meta(m).Name
		if ch.Deleted {
			m = proto.Clone(m)
			ch.Object = api.Wrap(m)
			delete(c.objects, key)
		} else {
			c.objects[key] = m
		}
		api.Meta(m).ResourceVersion = api.FormatRevision(c.revision)
	}
	for _, m := range tx.written {
		api.Meta(m).ResourceVersion = api.FormatRevision(c.revision)
	}
	c.log = append(c.log, &carav1.WatchResponse{ResourceVersion: api.FormatRevision(c.revision), Changes: tx.changes})
	close(c.more)
	c.more = make(chan struct{})
	return nil
}

// Put writes a copy of an object: watches share what the cluster has, and the caller goes on with its own, which gets
// the revision.
func (tx *Tx) Put(m proto.Message) {
	tx.changes = append(tx.changes, &carav1.Change{Object: api.Wrap(proto.Clone(m))})
	tx.written = append(tx.written, m)
}

// Delete takes an object away, if it is there.
func (tx *Tx) Delete(kind, name string) {
	if m, ok := tx.c.objects[kind+"/"+name]; ok {
		tx.changes = append(tx.changes, &carav1.Change{Deleted: true, Object: api.Wrap(m)})
	}
}

// Get returns a copy of an object as it was before the transaction, or nil.
func Get[T proto.Message](tx *Tx, name string) T {
	var zero T
	m, ok := tx.c.objects[api.Kind(zero)+"/"+name]
	if !ok {
		return zero
	}
	return proto.Clone(m).(T)
}

// Put writes objects in one transaction.
func (c *Cluster) Put(objects ...proto.Message) {
	_ = c.Update(func(tx *Tx) error { // cannot fail: the change does not
		for _, m := range objects {
			tx.Put(m)
		}
		return nil
	})
}

// Delete takes an object away.
func (c *Cluster) Delete(kind, name string) {
	_ = c.Update(func(tx *Tx) error { // cannot fail: the change does not
		tx.Delete(kind, name)
		return nil
	})
}

// Read returns a copy of an object, or nil.
func Read[T proto.Message](c *Cluster, name string) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Get[T](&Tx{c: c}, name)
}

// All returns copies of all objects of a kind, by name.
func All[T proto.Message](c *Cluster) []T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return AllIn[T](&Tx{c: c})
}

// AllIn is All inside a transaction: as it was before it.
func AllIn[T proto.Message](tx *Tx) []T {
	var zero T
	var all []T
	for _, key := range slices.Sorted(maps.Keys(tx.c.objects)) {
		if strings.HasPrefix(key, api.Kind(zero)+"/") {
			all = append(all, proto.Clone(tx.c.objects[key]).(T))
		}
	}
	return all
}

// Watch tells the state of now and every transaction after it.
func (c *Cluster) Watch(req *carav1.WatchRequest, out grpc.ServerStreamingServer[carav1.WatchResponse]) error {
	wanted := func(o *carav1.Object) bool { return slices.Contains(req.Kinds, api.Kind(api.Unwrap(o))) }
	c.mu.Lock()
	first := &carav1.WatchResponse{ResourceVersion: api.FormatRevision(c.revision), Synced: true}
	for _, m := range c.objects {
		if o := api.Wrap(m); wanted(o) {
			first.Changes = append(first.Changes, &carav1.Change{Object: o})
		}
	}
	next := len(c.log)
	c.mu.Unlock()
	if err := out.Send(first); err != nil {
		return err
	}
	for {
		c.mu.Lock()
		fresh, more := c.log[next:], c.more
		if c.held {
			fresh = nil
		}
		next += len(fresh)
		c.mu.Unlock()
		for _, t := range fresh {
			told := &carav1.WatchResponse{ResourceVersion: t.ResourceVersion}
			for _, ch := range t.Changes {
				if wanted(ch.Object) {
					told.Changes = append(told.Changes, ch)
				}
			}
			if err := out.Send(told); err != nil {
				return err
			}
		}
		if len(fresh) > 0 {
			continue
		}
		select {
		case <-out.Context().Done():
			return out.Context().Err()
		case <-more:
		}
	}
}
