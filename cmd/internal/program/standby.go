package program

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/forward"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/connlimit"
	"github.com/caravanserai/cara/store/etcd"
)

// maxUnknown is how many connections a standby passes on by default, whose clients have not authenticated yet.
const maxUnknown = 4096

// reopenEvery is how often a server that has lost etcd tries to connect again.
const reopenEvery = time.Second

// runOnEtcd serves while this server holds the lock in etcd, and is a standby otherwise. All loops and all writes belong to
// the one server that holds the lock. A server that loses it becomes a standby again.
func (c *ServerConfig) runOnEtcd(ctx context.Context) (err error) {
	c.bound = &address{listen: c.Listen}
	defer func() { err = errors.Join(err, c.bound.Close()) }()
	db, err := c.openEtcd(ctx, false)
	if err != nil {
		return err
	}
	id, err := c.openShared(ctx, db)
	if err != nil {
		return errors.Join(err, db.Close()) //nolint:contextcheck // it closes also when ctx has ended
	}
	for {
		err := c.turn(ctx, db, id)
		if !errors.Is(err, etcd.ErrLockLost) || ctx.Err() != nil {
			return err
		}
		c.Logger.Warn("this server was paused or cut off from etcd for too long, and is a standby now", "error", err)
		db = nil
	}
}

// turn waits for the lock and serves as long as this server holds it. A nil db is opened first.
func (c *ServerConfig) turn(ctx context.Context, db *etcd.Store, id *identity.Identity) (err error) {
	w := &wait{c: c, id: id}
	w.forwarder = forward.New(forward.Config{ID: c.self.GetId(), Identity: id, Logger: c.Logger, Gone: func(holder string) { w.depose(ctx, holder) }, Keep: c.bound.keep})
	db, err = w.run(ctx, db)
	if db != nil {
		defer func() { err = errors.Join(err, db.Close()) }() //nolint:contextcheck // it closes also when ctx has ended
	}
	if err != nil {
		return err
	}
	servers := func(ctx context.Context) ([]*carav1.Server, error) { return c.others(ctx, db) }
	loops := &shares{db: db, server: c.self.GetId(), log: c.Logger}
	return c.runActive(ctx, onEtcd{db}, id, cluster{servers: servers, forwards: true, rights: loops.acquire, figures: []prometheus.Collector{etcdFigures{db}}})
}

// wait is the time as a standby. While it lasts, connections to the address are passed on to the active server. If that is not
// possible, clients get an answer that says why.
type wait struct {
	c         *ServerConfig
	id        *identity.Identity
	forwarder *forward.Forwarder
	db        atomic.Pointer[etcd.Store] // for depose

	mu  sync.Mutex
	why string

	stop   context.CancelFunc // nil until the address is served
	served chan error
}

// run returns a store that holds the lock. It returns the store also with an error, if it is open.
func (w *wait) run(ctx context.Context, db *etcd.Store) (*etcd.Store, error) {
	bounded, cancel := context.WithCancelCause(ctx)
	defer w.forwarder.Close()
	defer cancel(nil)
	tell := func(why string) { w.tell(bounded, why, cancel) }
	var err error
	if db == nil {
		tell("this server is a standby and connects to its store")
	}
	for db == nil && bounded.Err() == nil {
		if db, err = w.c.openEtcd(bounded, false); err == nil {
			break
		}
		tell(fmt.Sprintf("this server is a standby and cannot reach its store: %v", err))
		select {
		case <-time.After(reopenEvery):
		case <-bounded.Done():
		}
	}
	if bounded.Err() == nil {
		w.db.Store(db)
		db.Announce(w.c.self.GetId(), encode(w.c.self)) //nolint:contextcheck // it lasts as long as the store
		err = db.Lock(bounded, encode(w.c.self), func(holder []byte, err error) {
			if err == nil {
				w.forwarder.Point(bounded, string(holder), decode(holder).GetAddress())
			}
			tell(reason(holder, err))
		})
	}
	if w.stop != nil {
		w.stop()
		err = errors.Join(err, <-w.served)
	}
	if bounded.Err() != nil {
		err = context.Cause(bounded)
	}
	return db, err
}

func reason(holder []byte, err error) string {
	if err != nil {
		return fmt.Sprintf("this server is a standby and cannot ask for its turn: %v", err)
	}
	s := decode(holder)
	if s.GetAddress() == "" {
		return fmt.Sprintf("this server is a standby; the active one is on %.300q, and this server cannot pass calls on to it: it has no --advertise address", s.GetHost())
	}
	return fmt.Sprintf("this server is a standby; the active one is %s on %.300q", s.GetAddress(), s.GetHost())
}

// depose takes the lock from an active server that has ended, so that the next one need not wait for the end of its lease.
func (w *wait) depose(ctx context.Context, holder string) {
	db := w.db.Load()
	err := errors.Join(db.Depose(ctx, []byte(holder)), db.Dispossess(ctx, decode([]byte(holder)).GetId()))
	if err != nil && ctx.Err() == nil {
		w.c.Logger.Warn("the lock of the active server, which has ended, was not released: it ends with its lease", "error", err)
	}
}

// tell makes a reason known, and serves the address with it. It is called from one goroutine. fail ends the wait if the address
// cannot be served.
func (w *wait) tell(ctx context.Context, why string, fail context.CancelCauseFunc) {
	w.mu.Lock()
	news := w.why != why
	w.why = why
	w.mu.Unlock()
	if news {
		w.c.Logger.Info("standby", "reason", why)
	}
	if w.stop != nil {
		return
	}
	inner, err := w.c.bound.standby(ctx)
	if err != nil {
		fail(err)
		return
	}
	limits := w.c.Connections
	limits.Unknown = cmp.Or(limits.Max, maxUnknown) // the active server authenticates their clients
	l := identity.NewListener(w.forwarder.Listen(ctx, connlimit.New(inner, limits)), w.id.TLSConfig())
	ctx, w.stop = context.WithCancel(ctx)
	w.served = make(chan error, 1)
	go func() {
		err := apiserver.RunStandby(ctx, l, w.c.Logger, w.reason)
		if err != nil {
			fail(err)
		}
		w.served <- err
	}()
}

func (w *wait) reason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why
}
