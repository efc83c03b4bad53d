// Package failpoint kills a process at a chosen call of its engine, like kill -9.
//
// It wraps an engine.Engine in tests, so that shipped code contains no failpoints. Each call that changes something, and
// optionally each call that reads, has a label: its name and its number since the process started, such as
// `StartContainer#2`. Pings and streams have no labels, because their timing varies.
package failpoint

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// When is the moment in a call when the process ends.
type When string

// Before means before the call. During means while the engine is working, so that its response is lost. After means after
// the response, before anything is done with it.
const (
	Before When = "before"
	During When = "during"
	After  When = "after"
)

// aMoment is long enough for the engine to receive a call and, except for the fastest calls, too short to complete it.
const aMoment = 3 * time.Millisecond

// Config configures a failpoint.
type Config struct {
	// Label of the call. If it is empty, the process does not end.
	Label string
	When  When
	// Reads gives labels to calls that read, too.
	Reads bool
	// Seen is called with the label of each call when it starts.
	Seen func(label string)
	// Die ends the process. It does not return.
	Die func()
}

// Engine is an engine with a failpoint.
type Engine struct {
	engine.Engine
	cfg Config

	mu    sync.Mutex
	calls map[string]int
}

// New wraps inner with a failpoint.
func New(inner engine.Engine, cfg Config) *Engine {
	return &Engine{Engine: inner, cfg: cfg, calls: map[string]int{}}
}

func (e *Engine) label(call string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls[call]++
	return fmt.Sprintf("%s#%d", call, e.calls[call])
}

// change makes one call that changes something, and kills the process if it is the chosen one.
func (e *Engine) change(call string, do func() error) error {
	label := e.label(call)
	e.cfg.Seen(label)
	if label != e.cfg.Label {
		return do()
	}
	switch e.cfg.When {
	case Before:
		e.cfg.Die()
	case During:
		time.AfterFunc(aMoment, e.cfg.Die)
	case After: // with any result
	}
	err := do()
	e.cfg.Die()
	return err
}

func (e *Engine) read(call string, do func() error) error {
	if !e.cfg.Reads {
		return do()
	}
	return e.change(call, do)
}

// ListContainers implements engine.Engine.
func (e *Engine) ListContainers(ctx context.Context, labels map[string]string) (list []engine.Container, err error) {
	return list, e.read("ListContainers", func() error { list, err = e.Engine.ListContainers(ctx, labels); return err })
}

// InspectContainer implements engine.Engine.
func (e *Engine) InspectContainer(ctx context.Context, id string) (c engine.Container, err error) {
	return c, e.read("InspectContainer", func() error { c, err = e.Engine.InspectContainer(ctx, id); return err })
}

// InspectVolume implements engine.Engine.
func (e *Engine) InspectVolume(ctx context.Context, name string) (v engine.Volume, err error) {
	return v, e.read("InspectVolume", func() error { v, err = e.Engine.InspectVolume(ctx, name); return err })
}

// CreateContainer implements engine.Engine.
func (e *Engine) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (id string, err error) {
	return id, e.change("CreateContainer", func() error { id, err = e.Engine.CreateContainer(ctx, spec); return err })
}

// RemoveContainer implements engine.Engine.
func (e *Engine) RemoveContainer(ctx context.Context, id string) error {
	return e.change("RemoveContainer", func() error { return e.Engine.RemoveContainer(ctx, id) })
}

// CopyFiles implements engine.Engine.
func (e *Engine) CopyFiles(ctx context.Context, id string, files []engine.File) error {
	return e.change("CopyFiles", func() error { return e.Engine.CopyFiles(ctx, id, files) })
}

// StartContainer implements engine.Engine.
func (e *Engine) StartContainer(ctx context.Context, id string) error {
	return e.change("StartContainer", func() error { return e.Engine.StartContainer(ctx, id) })
}

// StopContainer implements engine.Engine.
func (e *Engine) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	return e.change("StopContainer", func() error { return e.Engine.StopContainer(ctx, id, grace) })
}

// RenameContainer implements engine.Engine.
func (e *Engine) RenameContainer(ctx context.Context, id, name string) error {
	return e.change("RenameContainer", func() error { return e.Engine.RenameContainer(ctx, id, name) })
}

// PauseContainer implements engine.Engine.
func (e *Engine) PauseContainer(ctx context.Context, id string) error {
	return e.change("PauseContainer", func() error { return e.Engine.PauseContainer(ctx, id) })
}

// UnpauseContainer implements engine.Engine.
func (e *Engine) UnpauseContainer(ctx context.Context, id string) error {
	return e.change("UnpauseContainer", func() error { return e.Engine.UnpauseContainer(ctx, id) })
}

// UpdateContainer implements engine.Engine.
func (e *Engine) UpdateContainer(ctx context.Context, id string, limits engine.Limits) error {
	return e.change("UpdateContainer", func() error { return e.Engine.UpdateContainer(ctx, id, limits) })
}

// ConnectContainer implements engine.Engine.
func (e *Engine) ConnectContainer(ctx context.Context, network, id, alias string) error {
	return e.change("ConnectContainer", func() error { return e.Engine.ConnectContainer(ctx, network, id, alias) })
}

// ListNetworks implements engine.Engine.
func (e *Engine) ListNetworks(ctx context.Context, labels map[string]string) (list []engine.Network, err error) {
	return list, e.read("ListNetworks", func() error { list, err = e.Engine.ListNetworks(ctx, labels); return err })
}

// CreateNetwork implements engine.Engine.
func (e *Engine) CreateNetwork(ctx context.Context, name string, labels map[string]string, containers int) (n engine.Network, err error) {
	return n, e.change("CreateNetwork", func() error { n, err = e.Engine.CreateNetwork(ctx, name, labels, containers); return err })
}

// RemoveNetwork implements engine.Engine.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	return e.change("RemoveNetwork", func() error { return e.Engine.RemoveNetwork(ctx, id) })
}

// ListVolumes implements engine.Engine.
func (e *Engine) ListVolumes(ctx context.Context, labels map[string]string) (list []engine.Volume, err error) {
	return list, e.read("ListVolumes", func() error { list, err = e.Engine.ListVolumes(ctx, labels); return err })
}

// CreateVolume implements engine.Engine.
func (e *Engine) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	return e.change("CreateVolume", func() error { return e.Engine.CreateVolume(ctx, name, labels) })
}

// RemoveVolume implements engine.Engine.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	return e.change("RemoveVolume", func() error { return e.Engine.RemoveVolume(ctx, name) })
}

// InspectImage implements engine.Engine.
func (e *Engine) InspectImage(ctx context.Context, ref string) (image engine.Image, err error) {
	return image, e.read("InspectImage", func() error { image, err = e.Engine.InspectImage(ctx, ref); return err })
}

// PullImage implements engine.Engine.
func (e *Engine) PullImage(ctx context.Context, ref string, auth *carav1.RegistryAuth, progress func(engine.Progress)) (image engine.Image, err error) {
	return image, e.change("PullImage", func() error { image, err = e.Engine.PullImage(ctx, ref, auth, progress); return err })
}
