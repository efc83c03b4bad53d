package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent"
)

func (d *deadly) arm(calls int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.dead = calls, make(chan struct{})
}

// wait says whether the agent died before done.
func (d *deadly) wait(t testing.TB, done func() bool) bool {
	t.Helper()
	d.mu.Lock()
	dead := d.dead
	d.mu.Unlock()
	died := false
	waitUntil(t, func() bool {
		select {
		case <-dead:
			died = true
		default:
		}
		return died || done()
	})
	return died
}

// step does one changing call, or dies: the last call is done and its answer lost, those beside it are never made.
func (d *deadly) step(ctx context.Context, call func() error) error {
	d.mu.Lock()
	d.left--
	left, dead := d.left, d.dead
	d.mu.Unlock()
	if left > 0 {
		return call()
	}
	var err error
	if left == 0 {
		err = call()
		close(dead)
	}
	<-ctx.Done()
	if err != nil {
		return err
	}
	return ctx.Err()
}

func (d *deadly) CreateNetwork(ctx context.Context, name string, labels map[string]string) (n agent.Network, err error) {
	return n, d.step(ctx, func() error { n, err = d.Engine.CreateNetwork(ctx, name, labels); return err })
}

func (d *deadly) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	return d.step(ctx, func() error { return d.Engine.CreateVolume(ctx, name, labels) })
}

func (d *deadly) CreateContainer(ctx context.Context, spec agent.ContainerSpec) (id string, err error) {
	return id, d.step(ctx, func() error { id, err = d.Engine.CreateContainer(ctx, spec); return err })
}

func (d *deadly) StartContainer(ctx context.Context, id string) error {
	return d.step(ctx, func() error { return d.Engine.StartContainer(ctx, id) })
}

func (d *deadly) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	return d.step(ctx, func() error { return d.Engine.StopContainer(ctx, id, grace) })
}

func (d *deadly) RemoveContainer(ctx context.Context, id string) error {
	return d.step(ctx, func() error { return d.Engine.RemoveContainer(ctx, id) })
}
