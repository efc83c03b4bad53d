package program

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// reopenEvery is how often a server that has lost its place in etcd's history tries to connect again.
const reopenEvery = time.Second

// runOnEtcd serves beside the other servers of the cluster. A server that cannot follow etcd any more, because it was paused or cut
// off for so long that etcd has dropped what it has missed, reads everything again.
func (c *ServerConfig) runOnEtcd(ctx context.Context) error {
	for {
		err := c.turn(ctx)
		if !errors.Is(err, store.ErrCompacted) || ctx.Err() != nil {
			return err
		}
		c.Logger.Warn("this server was paused or cut off from etcd for too long, and reads everything again", "error", err)
		for err = c.reach(ctx); err != nil; err = c.reach(ctx) {
			c.Logger.Warn("etcd is not reached", "error", err)
			select {
			case <-time.After(reopenEvery):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// turn serves until ctx ends, or a part of the server or the store fails.
func (c *ServerConfig) turn(ctx context.Context) (err error) {
	db, err := c.openEtcd(ctx, false)
	if err != nil {
		return err
	}
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
		servers: func(ctx context.Context) ([]*carav1.Server, error) { return runningServers(ctx, db) }, directory: inEtcd{joined},
		acquire: leases.acquire, figures: []prometheus.Collector{etcdFigures{db}},
	})
}

// reach returns nil if etcd answers.
func (c *ServerConfig) reach(ctx context.Context) error {
	db, err := c.openEtcd(ctx, false)
	if err != nil {
		return err
	}
	return db.Close() //nolint:contextcheck // it closes also when ctx has ended
}
