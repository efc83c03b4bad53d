package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

const (
	node = "bench"
	pool = "10.232.0.0/16"
	// patience is how long anything may take before the measuring gives up.
	patience = 2 * time.Minute
)

// cluster is a real server and agent, and a client's picture of the projects.
type cluster struct {
	*testcluster.Cluster
	engine   *engine
	host     string
	entry    string // address of the ingress
	name     string // every project's name begins with it
	projects carav1.ProjectServiceClient
	apply    carav1.ApplyServiceClient
	sources  carav1.SourceServiceClient
	mirror   *loop.Mirror
	changed  chan struct{}
	end      func() error // of the mirror
}

// openCluster starts a server and, where host is not empty, an agent on that engine.
func (o options) openCluster(ctx context.Context, dir, host string, e *engine, name string) (*cluster, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	bin := o.bin
	if bin == "" {
		bin = filepath.Join(filepath.Dir(dir), "bin")
		if err := testcluster.Build(ctx, bin); err != nil {
			return nil, err
		}
	}
	tc, err := testcluster.New(testcluster.Config{Dir: dir, Bin: bin})
	if err != nil {
		return nil, err
	}
	c := &cluster{Cluster: tc, engine: e, host: host, name: name, changed: make(chan struct{}, 1), end: func() error { return nil }}
	if err := c.begin(ctx); err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	return c, nil
}

// begin starts the programs and waits until they are ready.
func (c *cluster) begin(ctx context.Context) error {
	ready, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.StartServer(ready); err != nil {
		return err
	}
	conn, err := c.Conn()
	if err != nil {
		return err
	}
	c.projects, c.apply, c.sources = carav1.NewProjectServiceClient(conn), carav1.NewApplyServiceClient(conn), carav1.NewSourceServiceClient(conn)
	if err := c.follow(ready, ctx, conn); err != nil || c.host == "" {
		return err
	}
	if c.entry, err = c.StartAgent(testcluster.Agent{Name: node, DockerHost: c.host, Pool: pool}); err != nil {
		return err
	}
	return c.AwaitNode(ready, node, api.NodeReady)
}

// follow keeps the picture of the projects until close.
func (c *cluster) follow(ready, whole context.Context, conn grpc.ClientConnInterface) error {
	c.mirror = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(conn), Kinds: []string{api.KindProject}, Logger: slog.New(slog.DiscardHandler),
		OnChange: func([]loop.Change) {
			select {
			case c.changed <- struct{}{}:
			default:
			}
		},
	})
	ctx, cancel := context.WithCancel(whole)
	ended := make(chan error, 1)
	go func() { ended <- c.mirror.Run(ctx) }()
	c.end = func() error {
		cancel()
		return <-ended
	}
	return c.mirror.WaitSynced(ready)
}

// until waits for a condition of the projects.
func (c *cluster) until(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !cond() {
		select {
		case <-c.changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w\n%s", what, ctx.Err(), c.Dump(context.WithoutCancel(ctx)))
		}
	}
	return nil
}

// running waits until projects run.
func (c *cluster) running(ctx context.Context, names ...string) error {
	left := names
	return c.until(ctx, fmt.Sprintf("%d projects run", len(names)), func() bool {
		for len(left) > 0 {
			p, ok := loop.Get[*carav1.Project](c.mirror, left[0])
			if !ok || !testcluster.Runs(p) {
				return false
			}
			left = left[1:]
		}
		return true
	})
}

// gone waits until projects are not there any more.
func (c *cluster) gone(ctx context.Context, names ...string) error {
	left := names
	return c.until(ctx, fmt.Sprintf("%d projects are gone", len(names)), func() bool {
		for len(left) > 0 {
			if _, ok := loop.Get[*carav1.Project](c.mirror, left[0]); ok {
				return false
			}
			left = left[1:]
		}
		return true
	})
}

// create applies a project for each name, as one request. Of a fan, all services but the first depend on the first,
// and start side by side; else they start in the order of their list.
func (c *cluster) create(ctx context.Context, s shape, fan bool, names ...string) error {
	return c.createWith(ctx, s, fan, "", names...)
}

// createWith also gives the first service a volume of a type. A Managed one goes with its project.
func (c *cluster) createWith(ctx context.Context, s shape, fan bool, volume string, names ...string) error {
	req := &carav1.ApplyRequest{}
	for _, name := range names {
		p := &carav1.Project{
			ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
			Spec: &carav1.ProjectSpec{},
		}
		for n, service := range s.names() {
			p.Spec.Services = append(p.Spec.Services, &carav1.Service{Name: service, Image: testimage.KV})
			if fan && n > 0 {
				p.Spec.Services[n].DependsOn = []*carav1.Dependency{{Service: p.Spec.Services[0].Name}}
			}
		}
		if volume != "" {
			p.Spec.Volumes = []*carav1.ProjectVolume{{Name: "data", Type: volume}}
			p.Spec.Services[0].VolumeMounts = []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}
		}
		if volume == api.VolumeManaged {
			p.Spec.Volumes[0].Reclaim = api.ReclaimDelete
		}
		req.Objects = append(req.Objects, api.Wrap(p))
	}
	return c.applyAll(ctx, req)
}

func (c *cluster) applyAll(ctx context.Context, req *carav1.ApplyRequest) error {
	resp, err := c.apply.Apply(ctx, req)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	for _, r := range resp.GetResults() {
		if r.GetProblem() != nil {
			return fmt.Errorf("apply %s: %s", r.GetName(), r.GetProblem().GetDetail())
		}
	}
	return nil
}

// manifest is a project as create applies it, as a file.
func manifest(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: caravanserai/v1\nkind: Project\nmetadata: {name: %s}\nspec:\n  services:\n", name)
	for _, service := range single.names() {
		fmt.Fprintf(&b, "  - {name: %s, image: %q}\n", service, testimage.KV)
	}
	return b.String()
}

// close takes away what is in the engine, and ends the programs.
func (c *cluster) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return errors.Join(c.end(), c.Close(ctx))
}
