package program

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/store/etcd"
	"github.com/caravanserai/cara/store/etcd/survivor"
)

// recoverWithin is how long etcd may take to read the data of a survivor.
const recoverWithin = 10 * time.Minute

// Recovery says what `cara-server recover` reads and where it writes.
type Recovery struct {
	// Member is the data directory of one member of the lost etcd cluster, and Program is its etcd.
	Member, Program string
	// To is pebble:DIR, or a new etcd cluster, see EtcdConfig.setTarget.
	To string
}

// Recover copies the state of one member of an etcd cluster that has lost its majority to a data directory or a new etcd
// cluster, compares the copy, and returns the number of objects. The member's data stay as they are.
func (c *ServerConfig) Recover(ctx context.Context, r Recovery) (objects int, err error) {
	dir, alone := strings.CutPrefix(r.To, storePebble+":")
	if r.Member == "" || !c.Etcd.setTarget(r.To) && (!alone || dir == "") {
		return 0, errors.New("give --etcd-data-dir DIR (that of a member of the lost cluster), and --to etcd, --to etcd:URL,URL... or --to pebble:DIR (a data directory without a store)")
	}
	work := copying{c}
	if err := work.recoverySettings(alone, dir); err != nil {
		return 0, err
	}
	err = survivor.Run(ctx, survivor.Config{DataDir: r.Member, Program: r.Program}, func(ctx context.Context, endpoint string, secure *tls.Config) (err error) {
		from, err := work.openSurvivor(ctx, endpoint, secure)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, from.Close()) }() //nolint:contextcheck // it closes also when ctx has ended
		if alone {
			objects, err = work.fromEtcd(ctx, from, recovered)
		} else {
			objects, err = work.toNewEtcd(ctx, from)
		}
		return err
	})
	return objects, err
}

// recoverySettings sets the store, and the directory of a server alone, and checks the flags.
func (c copying) recoverySettings(alone bool, dir string) error {
	c.Store = storeEtcd
	if alone {
		c.DataDir = dir
		if len(c.Etcd.Endpoints) == 0 {
			c.Etcd.Endpoints = []string{"https://127.0.0.1:1"} // not used: only the copy of the member is asked
		}
	}
	return c.Validate()
}

// openSurvivor opens the store in the copy of the member as soon as etcd has read it.
func (c copying) openSurvivor(ctx context.Context, endpoint string, secure *tls.Config) (*etcd.Store, error) {
	cfg, err := c.Etcd.config()
	if err != nil {
		return nil, err
	}
	cfg.Endpoints, cfg.TLS, cfg.Logger = []string{endpoint}, secure, c.Logger
	cfg.Username, cfg.Password = "", "" // those are for the new etcd: the copy knows the certificate
	for deadline := time.Now().Add(recoverWithin); ; {
		db, err := etcd.Open(ctx, cfg)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) || !etcd.Silent(err) {
			return db, err
		}
		select {
		case <-time.After(reopenEvery / 5):
		case <-ctx.Done():
		}
	}
}

// toNewEtcd copies everything to the etcd of the flags, whose prefix must be unused.
func (c copying) toNewEtcd(ctx context.Context, from *etcd.Store) (objects int, err error) {
	page, err := c.everything(ctx, from)
	if err != nil {
		return 0, err
	}
	sealed, err := from.Shared(ctx, func() ([]byte, error) { return nil, errNoData })
	if err != nil {
		return 0, err
	}
	if page, err = recovered(page); err != nil {
		return 0, err
	}
	to, err := c.openEtcd(ctx, true)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, to.Close()) }() //nolint:contextcheck // it closes also when ctx has ended
	l, err := copyAlone(ctx, to)
	if err != nil {
		return 0, err
	}
	defer l.Release() //nolint:contextcheck // also when ctx has ended
	kept, err := to.Shared(ctx, func() ([]byte, error) { return sealed, nil })
	if err == nil && !bytes.Equal(kept, sealed) {
		err = fmt.Errorf("another cluster is below the prefix %s of the new etcd: choose another --etcd-prefix", c.Etcd.Prefix)
	}
	if err != nil {
		return 0, err
	}
	return len(page.KVs), to.Import(ctx, l, page)
}
