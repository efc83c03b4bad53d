// Package fake is an in-memory engine.Engine for tests. It runs one program, the fixtures' job (`-lines N -after D -exit
// C`), and can be configured to fail or to lose responses.
//
// It is used only in tests. It behaves like the real engine: both pass agent/enginetest.
package fake

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Engine is the fake engine.
type Engine struct {
	mu         sync.Mutex
	next       int
	containers map[string]*container
	networks   map[string]engine.Network
	volumes    map[string]engine.Volume
	images     map[string]engine.Image
	remote     map[string]error // references that can be pulled, with the registry's error
	listeners  map[chan engine.Event]map[string]string
	calls      map[string]int
	fault      func(call string) error
	lost       func(call string) error
	down       error
	gate       chan struct{}
	skew       time.Duration
	root       string // its data directory
	data       string // directory of the volumes' data; empty if they have none
}

type container struct {
	engine.Container
	spec  engine.ContainerSpec
	files []engine.File
	log   []engine.LogLine
	ends  *time.Timer
	wrote chan struct{} // closed at the next change of the log or the state
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine with the given images.
func New(images ...string) *Engine {
	e := &Engine{
		containers: map[string]*container{}, networks: map[string]engine.Network{}, volumes: map[string]engine.Volume{},
		images: map[string]engine.Image{}, remote: map[string]error{},
		listeners: map[chan engine.Event]map[string]string{}, calls: map[string]int{}, root: os.TempDir(),
	}
	for _, ref := range images {
		e.images[ref] = engine.Image{ID: "image-" + ref}
	}
	return e
}

// Remote sets the registry's response to a pull of ref. A nil error provides the image.
func (e *Engine) Remote(ref string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remote[ref] = err
}

// Gate blocks pulls until the channel is closed.
func (e *Engine) Gate(gate chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gate = gate
}

// Fault is called with the method name before each call. If it returns an error, the call fails and does nothing. Nil
// disables it.
func (e *Engine) Fault(fault func(call string) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = fault
}

// Lose is called after each successful call. If it returns an error, the response is lost.
func (e *Engine) Lose(lost func(call string) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = lost
}

// Down makes the engine unavailable (its containers keep running), or available again.
func (e *Engine) Down(yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = nil
	if yes {
		e.down = fmt.Errorf("connect: %w", engine.ErrUnavailable)
		for l := range e.listeners {
			delete(e.listeners, l)
			close(l)
		}
	}
}

// Skew sets the difference of the engine's clock to the agent's.
func (e *Engine) Skew(skew time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.skew = skew
}

// now returns the time of the engine's clock.
func (e *Engine) now() time.Time { return time.Now().Add(e.skew) }

// Calls returns how often a method was called.
func (e *Engine) Calls(call string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[call]
}

// Edit changes a container without an event.
func (e *Engine) Edit(id string, change func(*engine.Container)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.containers[id].Container)
}

// begin starts every call. It returns with mu held, and the caller must call end.
func (e *Engine) begin(ctx context.Context, call string) error {
	e.mu.Lock()
	e.calls[call]++
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", call, ctx.Err())
	case e.down != nil:
		return fmt.Errorf("%s: %w", call, e.down)
	case e.fault != nil:
		return e.fault(call)
	}
	return nil
}

func (e *Engine) end(call string, err *error) {
	if *err == nil && e.lost != nil {
		*err = e.lost(call)
	}
	e.mu.Unlock()
}

func (e *Engine) id() string {
	e.next++
	return fmt.Sprintf("%012d", e.next)
}

func has(labels, want map[string]string) bool {
	for key, value := range want {
		if got, ok := labels[key]; !ok || value != "" && got != value {
			return false
		}
	}
	return true
}

func ours(labels, want map[string]string) bool {
	return has(labels, map[string]string{
		"cara.cluster": want["cara.cluster"], "cara.node": want["cara.node"], "cara.project": want["cara.project"],
	})
}

// conflict returns the error for a taken name.
func conflict(what, name string, labels, want map[string]string) error {
	if ours(labels, want) {
		return fmt.Errorf("create %s %s: the name is in use", what, name)
	}
	return fmt.Errorf("create %s %s: %w", what, name, engine.ErrForeign)
}

// Ping implements engine.Machine.
func (e *Engine) Ping(ctx context.Context) (err error) {
	defer e.end("Ping", &err)
	return e.begin(ctx, "Ping")
}

// Info implements engine.Machine.
func (e *Engine) Info(ctx context.Context) (_ engine.Info, err error) {
	defer e.end("Info", &err)
	return engine.Info{Platform: "linux/amd64", Version: "fake", Hostname: "fake", CPUs: 4, Memory: 8 << 30, Root: e.root}, e.begin(ctx, "Info")
}

// SubnetCapacity implements engine.Machine.
func (e *Engine) SubnetCapacity() int { return 2048 }

// ListNetworks implements engine.Networks.
func (e *Engine) ListNetworks(ctx context.Context, labels map[string]string) (out []engine.Network, err error) {
	defer e.end("ListNetworks", &err)
	if err := e.begin(ctx, "ListNetworks"); err != nil {
		return nil, err
	}
	for _, n := range e.networks {
		if has(n.Labels, labels) {
			out = append(out, n)
		}
	}
	return out, nil
}

// CreateNetwork implements engine.Networks.
func (e *Engine) CreateNetwork(ctx context.Context, name string, labels map[string]string, _ int) (_ engine.Network, err error) {
	defer e.end("CreateNetwork", &err)
	if err := e.begin(ctx, "CreateNetwork"); err != nil {
		return engine.Network{}, err
	}
	if n, ok := e.networkNamed(name); ok {
		if has(n.Labels, labels) {
			return n, nil
		}
		return engine.Network{}, conflict("network", name, n.Labels, labels)
	}
	id := e.id()
	n := engine.Network{ID: id, Name: name, Labels: maps.Clone(labels), Subnet: "10.213." + strconv.Itoa(e.next%256) + ".0/27"}
	e.networks[id] = n
	return n, nil
}

func (e *Engine) networkNamed(name string) (engine.Network, bool) {
	for _, n := range e.networks {
		if n.Name == name || n.ID == name {
			return n, true
		}
	}
	return engine.Network{}, false
}

// RemoveNetwork implements engine.Networks.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) (err error) {
	defer e.end("RemoveNetwork", &err)
	if err := e.begin(ctx, "RemoveNetwork"); err != nil {
		return err
	}
	for _, c := range e.containers {
		if c.State != engine.StateRunning {
			continue
		}
		for _, at := range c.Networks {
			if at.NetworkID == id {
				return fmt.Errorf("remove network %s: it is in use by %s", id, c.Name)
			}
		}
	}
	delete(e.networks, id)
	return nil
}

// InspectImage implements engine.Images.
func (e *Engine) InspectImage(ctx context.Context, ref string) (_ engine.Image, err error) {
	defer e.end("InspectImage", &err)
	if err := e.begin(ctx, "InspectImage"); err != nil {
		return engine.Image{}, err
	}
	image, ok := e.images[strings.TrimPrefix(ref, "image-")] // by name or by id
	if !ok {
		return engine.Image{}, fmt.Errorf("image %s: %w", ref, engine.ErrNotFound)
	}
	return image, nil
}

// PullImage implements engine.Images.
func (e *Engine) PullImage(ctx context.Context, ref string, _ *carav1.RegistryAuth, progress func(engine.Progress)) (_ engine.Image, err error) {
	progress(engine.Progress{Done: 1, Total: 2, Layers: 1})
	e.mu.Lock()
	gate := e.gate
	e.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			e.mu.Lock()
			defer e.mu.Unlock()
			e.calls["PullImage given up"]++
			return engine.Image{}, ctx.Err()
		}
	}
	defer e.end("PullImage", &err)
	if err := e.begin(ctx, "PullImage"); err != nil {
		return engine.Image{}, err
	}
	answer, ok := e.remote[ref]
	switch {
	case !ok:
		return engine.Image{}, fmt.Errorf("pull image %s: %w: manifest unknown", ref, engine.ErrInvalid)
	case answer != nil:
		return engine.Image{}, fmt.Errorf("pull image %s: %w", ref, answer)
	}
	e.images[ref] = engine.Image{ID: "image-" + ref, Digest: ref + "@sha256:1"}
	return e.images[ref], nil
}

// ListImages implements engine.Images.
func (e *Engine) ListImages(ctx context.Context) (out []engine.StoredImage, err error) {
	defer e.end("ListImages", &err)
	if err := e.begin(ctx, "ListImages"); err != nil {
		return nil, err
	}
	for ref, image := range e.images {
		out = append(out, engine.StoredImage{ID: image.ID, Tags: []string{ref}, Size: 1 << 20})
	}
	return out, nil
}

// RemoveImage implements engine.Images.
func (e *Engine) RemoveImage(ctx context.Context, name string) (err error) {
	defer e.end("RemoveImage", &err)
	if err := e.begin(ctx, "RemoveImage"); err != nil {
		return err
	}
	for _, c := range e.containers {
		if image, ok := e.images[name]; ok && c.ImageID == image.ID {
			return fmt.Errorf("remove image %s: container %s uses it", name, c.Name)
		}
	}
	delete(e.images, name)
	return nil
}
