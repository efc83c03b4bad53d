package program

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/etcd"
)

// reopenEvery is how often a server that has lost its place in etcd's history tries to connect again.
const reopenEvery = time.Second

// runOnEtcd serves beside the other servers of the cluster. A server that cannot follow etcd any more, because it was paused or cut
// off for so long that etcd has dropped what it has missed, reads everything again.
func (c *ServerConfig) runOnEtcd(ctx context.Context) error {
	db, err := c.openEtcd(ctx, false)
	if err != nil {
		return err
	}
	for {
		err := c.serveOnEtcd(ctx, db)
		if !errors.Is(err, store.ErrCompacted) || ctx.Err() != nil {
			return err
		}
		c.Logger.Warn("this server was paused or cut off from etcd for too long, and reads everything again", "error", err)
		if db = c.reopen(ctx); db == nil {
			return nil
		}
	}
}

// reopen opens the store as soon as etcd answers. It returns nil if ctx ends first.
func (c *ServerConfig) reopen(ctx context.Context) *etcd.Store {
	for {
		db, err := c.openEtcd(ctx, false)
		if err == nil {
			return db
		}
		c.Logger.Warn("etcd is not reached", "error", err)
		select {
		case <-time.After(reopenEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// serveOnEtcd serves until ctx ends, or a part of the server or the store fails. It closes the store.
func (c *ServerConfig) serveOnEtcd(ctx context.Context, db *etcd.Store) (err error) {
	defer func() { err = errors.Join(err, db.Close()) }() //nolint:contextcheck // it closes also when ctx has ended
	id, err := c.openShared(ctx, db)
	if err != nil {
		return err
	}
	self := c.describe()
	joined, err := db.Join(ctx, self.GetId(), encode(self))
	if err != nil {
		return fmt.Errorf("announce this server in etcd: %w", err)
	}
	leases := &etcdLeases{db: db, server: self.GetId(), log: c.Logger}
	return c.runOpened(ctx, onEtcd{db}, id, cluster{
		servers: func(ctx context.Context) ([]*carav1.Server, error) { return runningServers(ctx, db) }, directory: &etcdDirectory{Directory: joined},
		acquire: leases.acquire, figures: []prometheus.Collector{etcdFigures{db}},
	})
}
