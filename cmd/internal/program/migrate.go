package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/etcd"
	"github.com/caravanserai/cara/store/pebble"
)

var errNoData = errors.New("there is no data in etcd: check --etcd-prefix")

// Migrate copies the whole state between a data directory (pebble:DIR) and etcd (see setTarget), compares the copy,
// and returns the number of objects. No server may run on either of them. The source stays as it is.
func (c *ServerConfig) Migrate(ctx context.Context, from, to string) (objects int, err error) {
	dir, toEtcd := strings.CutPrefix(from, storePebble+":")
	other, ok := to, toEtcd
	if !toEtcd {
		other = from
		dir, ok = strings.CutPrefix(to, storePebble+":")
	}
	if !ok || dir == "" || !c.Etcd.setTarget(other) {
		return 0, errors.New("give --from pebble:DIR --to etcd, or --from etcd --to pebble:DIR, where DIR is the data directory of a server; etcd:URL,URL... names the members of etcd")
	}
	c.DataDir, c.Store = dir, storeEtcd
	if err := c.Validate(); err != nil {
		return 0, err
	}
	if _, err := os.Stat(c.storeDir()); toEtcd && err != nil { // to open it would create it
		return 0, fmt.Errorf("%s has no store: give the data directory of a server: %w", dir, text.WithoutPath(err))
	}
	db, err := c.openEtcd(ctx, toEtcd)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }() //nolint:contextcheck // it closes also when ctx has ended
	l, err := copyAlone(ctx, db)
	if err != nil {
		return 0, err
	}
	defer l.Release() //nolint:contextcheck // also when ctx has ended
	if toEtcd {
		return copying{c}.toEtcd(ctx, db, l)
	}
	return copying{c}.fromEtcd(ctx, db, func(p store.Page) (store.Page, error) { return p, nil })
}

// copyAlone takes the lease for a copy if no server runs. While it lasts, none starts.
func copyAlone(ctx context.Context, db *etcd.Store) (*etcd.Lease, error) {
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, err := db.Acquire(bounded, etcd.LeaseCopy, etcd.Candidate{Server: "cara-server migrate", Waiting: func(holder string, err error) {
		if err == nil {
			err = fmt.Errorf("%.300q uses etcd: stop all servers first, and wait until another copy has ended", holder)
		}
		cancel(err)
	}})
	if bounded.Err() != nil {
		return nil, context.Cause(bounded)
	}
	if err != nil {
		return nil, err
	}
	running, err := db.Announced(ctx)
	if err == nil && len(running) > 0 {
		err = fmt.Errorf("%d servers run on etcd (one of them on %.300q): stop all servers first, and wait 10 seconds for one that was killed", len(running), decode(running[0]).GetHost())
	}
	if err != nil {
		l.Release() //nolint:contextcheck // also when ctx has ended
		return nil, err
	}
	return l, nil
}

// copying copies the objects of a cluster to another store, while no server runs.
type copying struct{ *ServerConfig }

func (c copying) toEtcd(ctx context.Context, db *etcd.Store, l *etcd.Lease) (int, error) {
	page, err := readDir(ctx, c.storeDir())
	if err != nil {
		return 0, err
	}
	if page.Revision == 0 {
		return 0, fmt.Errorf("%s has no data: give the data directory of a server", c.DataDir)
	}
	if _, err := c.openShared(ctx, db); err != nil {
		return 0, err
	}
	if c.isFromBackup() {
		if page, err = recovered(page); err != nil {
			return 0, err
		}
	}
	return len(page.KVs), db.Import(ctx, l, page)
}

// fromEtcd copies everything to the data directory. change returns what to store instead of what etcd has.
func (c copying) fromEtcd(ctx context.Context, db *etcd.Store, change func(store.Page) (store.Page, error)) (int, error) {
	page, err := c.everything(ctx, db)
	if err != nil {
		return 0, err
	}
	if page, err = change(page); err != nil {
		return 0, err
	}
	if err := pebble.Import(pebble.Config{Dir: c.storeDir(), Logger: c.Logger}, page); err != nil {
		return 0, err
	}
	written, err := readDir(ctx, c.storeDir())
	if err != nil {
		return 0, err
	}
	return len(page.KVs), etcd.Equal(page, written)
}

// everything returns all objects in etcd. It checks that the cluster key opens them and that the data directory is of this cluster.
func (c copying) everything(ctx context.Context, db *etcd.Store) (store.Page, error) {
	page, err := db.List(ctx, "", store.ListOptions{})
	if err == nil && len(page.KVs) == 0 {
		err = errNoData
	}
	if err == nil {
		_, err = c.openShared(ctx, db)
	}
	return page, err
}

// readDir returns all objects of a store on disk.
func readDir(ctx context.Context, dir string) (page store.Page, err error) {
	db, err := pebble.OpenContext(ctx, pebble.Config{Dir: dir})
	if err != nil {
		return store.Page{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.List(ctx, "", store.ListOptions{})
}
