package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// fleet is the servers, their nodes and repositories.
type fleet struct {
	*testcluster.Cluster // the server that clients call
	options
	beside  []*testcluster.Cluster // the other servers
	etcd    []*testcluster.Process
	nodes   []*node
	repos   []*repository
	git     *gitServer
	wire    wire
	conn    *grpc.ClientConn
	mirror  *loop.Mirror // of nodes, projects and sources, as a client sees them
	changed chan struct{}
	end     func() error // of the mirror

	mu       sync.Mutex
	notReady int                  // nodes that became NotReady since the last look
	ready    map[string]bool      // nodes that are Ready
	breaks   int                  // connections that ended although no scene ended them
	lastErr  error                // of the last of them
	running  map[string]bool      // projects that run at their newest generation
	read     map[string]bool      // sources that have been read
	changes  map[string]time.Time // when the newest change of a project began, by image
	took     []time.Duration      // from change to assignment
}

// patientClients is how many calls of the program itself run at the same time.
const patientClients = 8

// open starts the server and follows it.
func (o options) open(ctx context.Context, dir string) (*fleet, error) {
	many := fmt.Sprint(2*o.nodes + 1000)
	tc, err := testcluster.New(testcluster.Config{Dir: dir, Bin: o.bin, ServerFlags: []string{
		"--max-connections", many, "--max-connections-per-address", many, "--base-domain", "fleet.test", "--environment", "bench",
	}})
	if err != nil {
		return nil, err
	}
	f := &fleet{
		Cluster: tc, options: o, changed: make(chan struct{}, 1), end: func() error { return nil },
		ready: map[string]bool{}, running: map[string]bool{}, read: map[string]bool{}, changes: map[string]time.Time{},
	}
	if err := f.begin(ctx); err != nil {
		return nil, errors.Join(err, f.close(context.WithoutCancel(ctx)))
	}
	return f, nil
}

func (f *fleet) begin(ctx context.Context) (err error) {
	ready, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	if f.git, err = openGit(ctx, f.Dir); err != nil {
		return err
	}
	if err := f.startServers(ready); err != nil {
		return err
	}
	if f.conn, err = f.Conn(); err != nil {
		return err
	}
	f.mirror = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(f.conn), Kinds: []string{api.KindNode, api.KindProject, api.KindSource},
		Logger: slog.New(slog.DiscardHandler), OnChange: f.note,
	})
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.mirror.Run(following) }()
	f.end = func() error {
		stop()
		return <-ended
	}
	return f.mirror.WaitSynced(ready)
}

// close ends everything.
func (f *fleet) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var all errgroup.Group
	for _, n := range f.nodes {
		all.Go(func() error {
			if n.end != nil {
				n.stop()
			}
			return n.conn.Close()
		})
	}
	err := errors.Join(all.Wait(), f.end(), f.closeServers(ctx))
	if f.git != nil {
		err = errors.Join(err, f.git.Close())
	}
	return err
}

// note counts what a transaction of the server means.
func (f *fleet) note(changes []loop.Change) {
	f.mu.Lock()
	for _, ch := range changes {
		name := api.Meta(ch.Object()).GetName()
		switch m := ch.Object().(type) {
		case *carav1.Node:
			is := ch.New != nil && m.GetStatus().GetState() == api.NodeReady
			if f.ready[name] && !is {
				f.notReady++
			}
			set(f.ready, name, is)
		case *carav1.Source:
			set(f.read, name, ch.New != nil && m.GetStatus().GetSnapshot() != nil)
		case *carav1.Project:
			set(f.running, name, ch.New != nil && testcluster.Runs(m))
		}
	}
	f.mu.Unlock()
	f.kick()
}

func set(all map[string]bool, name string, is bool) {
	if is {
		all[name] = true
	} else {
		delete(all, name)
	}
}

// kick lets until look again.
func (f *fleet) kick() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// broken records that a connection ended although no scene ended it.
func (f *fleet) broken(node string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.breaks++
	f.lastErr = fmt.Errorf("%s: %w", node, err)
}

// heard records that a node has been told about a project.
func (f *fleet) heard(_ string, p *carav1.Project) {
	f.mu.Lock()
	defer f.mu.Unlock()
	image := p.GetSpec().GetServices()[0].GetImage()
	began, ok := f.changes[image]
	if !ok {
		return
	}
	delete(f.changes, image)
	f.took = append(f.took, time.Since(began))
	f.kick()
}

// begins records that a change begins. Its image is used once.
func (f *fleet) begins(image string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes[image] = time.Now()
}

// until waits for a condition, which is called with mu held.
func (f *fleet) until(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	for {
		f.mu.Lock()
		done := cond()
		state := fmt.Sprintf("%d nodes are Ready, %d projects run, %d changes are awaited, %d connections broke (last: %v)",
			len(f.ready), len(f.running), len(f.changes), f.breaks, f.lastErr)
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-f.changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w: %s\n%s", what, ctx.Err(), state, f.Server.Tail(5))
		}
	}
}

// each calls do for 0 to n-1, some at the same time.
func each(ctx context.Context, n, parallel int, do func(ctx context.Context, i int) error) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(parallel)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		work.Go(func() error { return do(ctx, i) })
	}
	return work.Wait()
}

// say tells about the progress.
func say(format string, values ...any) { fmt.Fprintf(os.Stderr, "fleet: "+format+"\n", values...) }
