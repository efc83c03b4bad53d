package agent_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/testimage"
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
			b.ReportMetric(float64(up.Milliseconds())/float64(n), "ms-up")
			b.ReportMetric(float64(down.Milliseconds())/float64(n), "ms-down")
		})
	}
}

// fanned says with dependsOn that b and c need a and nothing of one another.
func fanned() *carav1.ProjectSpec {
	spec := plain()
	for _, s := range spec.Services[1:] {
		s.DependsOn = []*carav1.Dependency{{Service: "a"}}
	}
	return spec
}

// BenchmarkEngineFloor is what the bare engine takes for the same: network, three containers, three starts.
func BenchmarkEngineFloor(b *testing.B) {
	r := newReal(b)
	docker := r.docker(b)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	var up, down time.Duration
	n := 0
	for b.Loop() {
		n++
		name := fmt.Sprintf("floor-%d-%d", time.Now().UnixNano(), n)
		begun := time.Now()
		net, err := docker.NetworkCreate(b.Context(), name, network.CreateOptions{
			Labels: r.labels, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.214.0.0/27"}}},
		})
		must(err)
		var ids []string
		for i := range 3 {
			c, err := docker.ContainerCreate(b.Context(), &container.Config{Image: testimage.Job, Cmd: []string{"-after", "1h"}, Labels: r.labels},
				&container.HostConfig{NetworkMode: container.NetworkMode(name)}, nil, nil, fmt.Sprintf("%s-%d", name, i))
			must(err)
			must(docker.ContainerStart(b.Context(), c.ID, container.StartOptions{}))
			ids = append(ids, c.ID)
		}
		up += time.Since(begun)
		begun = time.Now()
		done := make(chan error, 3)
		for _, id := range ids {
			go func() {
				err := docker.ContainerStop(context.WithoutCancel(b.Context()), id, container.StopOptions{})
				if err == nil {
					err = docker.ContainerRemove(context.WithoutCancel(b.Context()), id, container.RemoveOptions{})
				}
				done <- err
			}()
		}
		for range ids {
			must(<-done)
		}
		must(docker.NetworkRemove(b.Context(), net.ID))
		down += time.Since(begun)
	}
	b.ReportMetric(float64(up.Milliseconds())/float64(n), "ms-up")
	b.ReportMetric(float64(down.Milliseconds())/float64(n), "ms-down")
}

// BenchmarkTwentyProjects is twenty of them at once.
func BenchmarkTwentyProjects(b *testing.B) {
	const many = 20
	r := newReal(b)
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
	b.ReportMetric(float64(up.Milliseconds())/float64(n), "ms-up")
	b.ReportMetric(float64(down.Milliseconds())/float64(n), "ms-down")
}

// BenchmarkKilledContainerBack is a killed container until it is reported Running again.
func BenchmarkKilledContainerBack(b *testing.B) {
	r := newReal(b)
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
	b.ReportMetric(float64(took.Milliseconds())/float64(n), "ms-back")
}
