package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protojson"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// saveDelay batches changes of the table. The whole table is written each time, so the delay grows with the duration of a
	// write: writing takes at most a twentieth of the time.
	saveDelay = 100 * time.Millisecond
	// maxTable limits the size of a file that is read.
	maxTable = 256 << 20
)

// restore loads the table of an earlier run, unless the server has already sent one. If the file cannot be read, hosts are
// served once the server is back.
func (i *Ingress) restore() {
	if i.cfg.File == "" {
		return
	}
	kept, err := readTable(i.cfg.File)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			i.cfg.Logger.Warn("kept routes not read", "file", i.cfg.File, "error", err)
		}
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.told {
		i.apply(kept)
	}
}

func readTable(file string) (*carav1.Routes, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxTable {
		return nil, fmt.Errorf("it is larger than %d bytes", maxTable)
	}
	routes := &carav1.Routes{}
	return routes, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, routes)
}

// keepSaved writes the table and the credentials to their files after each change, until ctx ends.
func (i *Ingress) keepSaved(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	if i.cfg.File != "" {
		all.Go(func() { i.keepFile(ctx, i.cfg.File, i.changed, i.save) })
	}
	if i.cfg.CredentialsFile != "" {
		all.Go(func() { i.keepFile(ctx, i.cfg.CredentialsFile, i.credentialsChanged, i.saveCredentials) })
	}
}

// keepFile saves after each change until ctx ends, and then the changes that are not saved yet.
func (i *Ingress) keepFile(ctx context.Context, file string, changed <-chan struct{}, save func() error) {
	delay, failing := saveDelay, false
	for ctx.Err() == nil || len(changed) > 0 {
		select {
		case <-changed:
		case <-ctx.Done():
			continue
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		began := time.Now()
		err := save()
		if err != nil && !failing {
			i.cfg.Logger.Warn("routes not kept", "file", file, "error", err)
		}
		failing = err != nil
		delay = max(saveDelay, 20*time.Since(began))
	}
}

func (i *Ingress) save() error {
	all := &carav1.Routes{Full: true}
	for host, s := range i.table.Load().hosts {
		s.save(host, all)
	}
	for _, p := range i.table.Load().peers {
		all.Peers = append(all.Peers, p)
	}
	data, err := protojson.Marshal(all)
	if err != nil {
		return err
	}
	return renameio.WriteFile(i.cfg.File, data, 0o600)
}
