// Package fakecluster is an in-memory cluster for tests of the loops. It has objects with revisions, transactions, and a
// watch like the server's. A test registers the services that its loop calls, implemented with Update, and then checks the
// objects and the calls.
//
// It behaves like the server where loops depend on it: every write increases the revision and sets it on the object, a
// transaction becomes visible atomically, and a watch reports it after the commit.
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

// Cluster holds the objects.
type Cluster struct {
	carav1.UnimplementedWatchServiceServer

	mu       sync.Mutex
	revision int64
	objects  map[string]proto.Message // by kind/name
	log      []*carav1.WatchResponse
	more     chan struct{} // closed and created again with each transaction
	calls    map[string]int
	refuse   map[string]error
	held     bool // watches send nothing
}

// New returns an empty cluster.
func New() *Cluster {
	return &Cluster{objects: map[string]proto.Message{}, more: make(chan struct{}), calls: map[string]int{}, refuse: map[string]error{}}
}

// Channel returns a connection that serves the watch. A test registers the other services on it.
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

// Refuse makes every call of a method fail with err. nil ends that.
func (c *Cluster) Refuse(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse[method] = err
}

// Hold stops every watch, or lets it continue where it stopped.
func (c *Cluster) Hold(held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = held
	close(c.more)
	c.more = make(chan struct{})
}

// TakeCalls returns the number of calls of each method since the last TakeCalls.
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
	written []proto.Message // the caller's objects
}

// Update runs change as one transaction. change must not return an error after a write.
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

// Put writes a copy of an object, since watches share the stored one. The caller's object gets the revision.
func (tx *Tx) Put(m proto.Message) {
	tx.changes = append(tx.changes, &carav1.Change{Object: api.Wrap(proto.Clone(m))})
	tx.written = append(tx.written, m)
}

// Delete removes an object, if it exists.
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
	_ = c.Update(func(tx *Tx) error { // cannot fail: the function returns nil
		for _, m := range objects {
			tx.Put(m)
		}
		return nil
	})
}

// Delete removes an object.
func (c *Cluster) Delete(kind, name string) {
	_ = c.Update(func(tx *Tx) error { // cannot fail: the function returns nil
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

// All returns copies of all objects of a kind, sorted by name.
func All[T proto.Message](c *Cluster) []T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return AllIn[T](&Tx{c: c})
}

// AllIn is All in a transaction. It returns the state before the transaction.
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

// Watch streams the current state and every later transaction.
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
