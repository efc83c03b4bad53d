package agent_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// plain are three services of one image, as the peers were measured.
func plain() *carav1.ProjectSpec {
	spec := &carav1.ProjectSpec{}
	for _, name := range []string{"a", "b", "c"} {
		spec.Services = append(spec.Services, &carav1.Service{Name: name, Image: testimage.Job, Args: []string{"-after", "1h"}})
	}
	return spec
}

// BenchmarkApplyToRunning is one project of three services: assigned -> reported Running, and Terminating -> Terminated.
func BenchmarkApplyToRunning(b *testing.B) {
	for shape, spec := range map[string]*carav1.ProjectSpec{"list": plain(), "dependsOn": fanned()} {
		b.Run(shape, func(b *testing.B) {
			r := newReal(b)
			engine := newTimed(r.cfg.Engine)
			r.cfg.Engine, r.cfg.Relist = engine, 15*time.Second
			r.run(b)
			var up, down time.Duration
			n := 0
			for b.Loop() {
				project := fmt.Sprintf("bench-%d", n)
				n++
				begun := time.Now()
				r.put(project, spec)
				r.wait(b, project, phase(api.PhaseRunning))
				up += time.Since(begun)
				begun = time.Now()
				r.terminate(project)
				r.wait(b, project, gone)
				down += time.Since(begun)
			}
			engine.report(b, n)
			b.ReportMetric(float64(up.Milliseconds())/float64(n), "ms-up")
			b.ReportMetric(float64(down.Milliseconds())/float64(n), "ms-down")
		})
	}
}

// fanned uses dependsOn: b and c need a, and do not need each other.
func fanned() *carav1.ProjectSpec {
	spec := plain()
	for _, s := range spec.Services[1:] {
		s.DependsOn = []*carav1.Dependency{{Service: "a"}}
	}
	return spec
}

// BenchmarkEngineFloor measures the same work without an agent: network, three containers, three starts.
func BenchmarkEngineFloor(b *testing.B) {
	r := newReal(b)
	docker := r.docker(b)
	var up, down time.Duration
	n := 0
	for b.Loop() {
		n++
		begun := time.Now()
		one, err := bareUp(b.Context(), docker, r.labels, n)
		if err != nil {
			b.Fatal(err)
		}
		up += time.Since(begun)
		begun = time.Now()
		if err := one.down(b.Context()); err != nil {
			b.Fatal(err)
		}
		down += time.Since(begun)
	}
	b.ReportMetric(float64(up.Milliseconds())/float64(n), "ms-up")
	b.ReportMetric(float64(down.Milliseconds())/float64(n), "ms-down")
}

// bare is a project created directly through the engine.
type bare struct {
	docker  *client.Client
	network string
	ids     []string
}

func bareUp(ctx context.Context, docker *client.Client, labels map[string]string, n int) (*bare, error) {
	name := fmt.Sprintf("floor-%d-%d", time.Now().UnixNano(), n)
	net, err := docker.NetworkCreate(ctx, name, network.CreateOptions{
		Labels: labels, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: fmt.Sprintf("10.214.%d.0/27", n%256)}}},
	})
	if err != nil {
		return nil, err
	}
	out := &bare{docker: docker, network: net.ID}
	for i := range 3 {
		c, err := docker.ContainerCreate(ctx, &container.Config{Image: testimage.Job, Cmd: []string{"-after", "1h"}, Labels: labels},
			&container.HostConfig{NetworkMode: container.NetworkMode(name)}, nil, nil, fmt.Sprintf("%s-%d", name, i))
		if err != nil {
			return nil, err
		}
		if err := docker.ContainerStart(ctx, c.ID, container.StartOptions{}); err != nil {
			return nil, err
		}
		out.ids = append(out.ids, c.ID)
	}
	return out, nil
}

func (o *bare) down(ctx context.Context) error {
	var g errgroup.Group
	for _, id := range o.ids {
		g.Go(func() error {
			if err := o.docker.ContainerStop(ctx, id, container.StopOptions{}); err != nil {
				return err
			}
			return o.docker.ContainerRemove(ctx, id, container.RemoveOptions{})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return o.docker.NetworkRemove(ctx, o.network)
}

// BenchmarkTwentyFloor measures twenty concurrent projects created directly through the engine.
func BenchmarkTwentyFloor(b *testing.B) {
	const many = 20
	r := newReal(b)
	docker := r.docker(b)
	var up, down time.Duration
	n := 0
	for b.Loop() {
		n++
		begun := time.Now()
		all := make([]*bare, many)
		var g errgroup.Group
		for i := range all {
			g.Go(func() (err error) {
				all[i], err = bareUp(b.Context(), docker, r.labels, i)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		up += time.Since(begun)
		begun = time.Now()
		for _, one := range all {
			g.Go(func() error { return one.down(b.Context()) })
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		down += time.Since(begun)
	}
	b.ReportMetric(float64(up.Milliseconds())/float64(n), "ms-up")
	b.ReportMetric(float64(down.Milliseconds())/float64(n), "ms-down")
}

// BenchmarkTwentyProjects measures twenty concurrent projects.
func BenchmarkTwentyProjects(b *testing.B) {
	const many = 20
	r := newReal(b)
	engine := newTimed(r.cfg.Engine)
	r.cfg.Engine, r.cfg.Relist = engine, 15*time.Second
	r.run(b)
	var up, down time.Duration
	n := 0
	for b.Loop() {
		n++
		begun := time.Now()
		for i := range many {
			r.put(fmt.Sprintf("many-%d-%d", n, i), plain())
		}
		for i := range many {
			r.wait(b, fmt.Sprintf("many-%d-%d", n, i), phase(api.PhaseRunning))
		}
		up += time.Since(begun)
		begun = time.Now()
		for i := range many {
			r.terminate(fmt.Sprintf("many-%d-%d", n, i))
		}
		for i := range many {
			r.wait(b, fmt.Sprintf("many-%d-%d", n, i), gone)
		}
		down += time.Since(begun)
	}
	engine.report(b, n*many)
	b.ReportMetric(float64(up.Milliseconds())/float64(n), "ms-up")
	b.ReportMetric(float64(down.Milliseconds())/float64(n), "ms-down")
}

// BenchmarkKilledContainerBack measures from the kill of a container until it is reported Running again.
func BenchmarkKilledContainerBack(b *testing.B) {
	r := newReal(b)
	engine := newTimed(r.cfg.Engine)
	r.cfg.Engine, r.cfg.Relist = engine, 15*time.Second
	r.cfg.Restart.Limit = 1 << 20
	r.cfg.Restart.Reset = time.Nanosecond
	r.run(b)
	r.put("kill", plain())
	p := r.wait(b, "kill", phase(api.PhaseRunning))
	docker := r.docker(b)
	var took time.Duration
	n := 0
	for b.Loop() {
		n++
		old := p.Status.Services[1]
		begun := time.Now()
		if err := docker.ContainerKill(b.Context(), old.ContainerId, "KILL"); err != nil {
			b.Fatal(err)
		}
		p = r.wait(b, "kill", func(p *carav1.Project) bool {
			s := p.GetStatus().GetServices()[1]
			return s.State == "Running" && !s.StartedAt.AsTime().Equal(old.StartedAt.AsTime())
		})
		took += time.Since(begun)
	}
	engine.report(b, n)
	b.ReportMetric(float64(took.Milliseconds())/float64(n), "ms-back")
}
