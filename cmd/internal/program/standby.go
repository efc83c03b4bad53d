package program

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/internal/connlimit"
	"github.com/caravanserai/cara/store/etcd"
)

// reopenEvery is how often a server that has lost etcd tries to connect again.
const reopenEvery = time.Second

// runOnEtcd serves while this server holds the lock in etcd, and is a standby otherwise. All loops and all writes belong to
// the one server that holds the lock. A server that loses it becomes a standby again.
func (c *ServerConfig) runOnEtcd(ctx context.Context) error {
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
	db, err = w.run(ctx, db)
	if db != nil {
		defer func() { err = errors.Join(err, db.Close()) }() //nolint:contextcheck // it closes also when ctx has ended
	}
	if err != nil {
		return err
	}
	return c.runActive(ctx, onEtcd{db}, id)
}

// wait is the time as a standby. While it lasts, the address answers why.
type wait struct {
	c  *ServerConfig
	id *identity.Identity

	mu  sync.Mutex
	why string

	stop   context.CancelFunc // nil until the address is served
	served chan error
}

// run returns a store that holds the lock. It returns the store also with an error, if it is open.
func (w *wait) run(ctx context.Context, db *etcd.Store) (*etcd.Store, error) {
	bounded, cancel := context.WithCancelCause(ctx)
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
		err = db.Lock(bounded, []byte(w.c.describe()), func(holder []byte, err error) { tell(reason(holder, err)) })
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

// describe tells other servers who this one is. Anybody who can connect to them may read it.
func (c *ServerConfig) describe() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s, listening on %s", host, c.Listen)
}

func reason(holder []byte, err error) string {
	if err != nil {
		return fmt.Sprintf("this server is a standby and cannot ask for its turn: %v", err)
	}
	return fmt.Sprintf("this server is a standby; the active one is %.300q", holder)
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
	inner, err := new(net.ListenConfig).Listen(ctx, "tcp", w.c.Listen)
	if err != nil {
		fail(fmt.Errorf("listen on %s: %w", w.c.Listen, err))
		return
	}
	l := identity.NewListener(connlimit.New(inner, w.c.Connections), w.id.TLSConfig())
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
