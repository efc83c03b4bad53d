package fake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// process is an in-memory command. It supports `cat`, `sleep`, `sized` (which ends once its terminal is 30 by 100) and the
// job.
type process struct {
	engine *Engine
	name   string
	args   []string

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of the fields below
	input   []byte
	closed  bool
	size    engine.Size
	ended   bool
}

// Start implements engine.Streams.
func (e *Engine) Start(ctx context.Context, id string, command engine.Command) (_ engine.Process, err error) {
	defer e.end("Start", &err)
	if err := e.begin(ctx, "Start"); err != nil {
		return nil, err
	}
	c, err := e.find(id)
	if err != nil {
		return nil, err
	}
	if c.State != engine.StateRunning {
		return nil, fmt.Errorf("container %s is not running", id)
	}
	return &process{engine: e, name: path.Base(command.Args[0]), args: command.Args[1:], changed: make(chan struct{}), closed: !command.Stdin}, nil
}

// change applies a change and wakes all waiters.
func (p *process) change(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

// Write implements engine.Process. Like a pipe, it buffers 64 KiB.
func (p *process) Write(data []byte) (int, error) {
	for {
		p.mu.Lock()
		changed, full, ended := p.changed, len(p.input) >= 64<<10, p.ended
		p.mu.Unlock()
		switch {
		case ended:
			return 0, errors.New("write: the command has ended")
		case full:
			<-changed
			continue
		}
		p.change(func() { p.input = append(p.input, data...) })
		return len(data), nil
	}
}

// CloseInput implements engine.Process.
func (p *process) CloseInput() error {
	p.change(func() { p.closed = true })
	return nil
}

// Resize implements engine.Process.
func (p *process) Resize(_ context.Context, size engine.Size) error {
	p.change(func() { p.size = size })
	return nil
}

// Wait implements engine.Process.
func (p *process) Wait(ctx context.Context, emit func(data []byte, stderr bool) error) (int, error) {
	code, err := p.wait(ctx, emit)
	p.change(func() { p.ended = true })
	return code, err
}

func (p *process) wait(ctx context.Context, emit func(data []byte, stderr bool) error) (int, error) {
	switch p.name {
	case "cat":
		for {
			input, more, err := p.read(ctx)
			if err != nil || !more {
				return 0, err
			}
			for chunk := range slices.Chunk(input, 32<<10) {
				if err := emit(bytes.Clone(chunk), false); err != nil {
					return 0, err
				}
			}
		}
	case "sleep":
		return 0, p.await(ctx, func() bool { return false })
	case "sized":
		return 0, p.await(ctx, func() bool { return p.size == engine.Size{Rows: 30, Columns: 100} })
	case "job":
		j := parse(p.args)
		for i := range j.lines {
			if err := emit(fmt.Appendf(nil, "job v1 line %d of %d\n", i+1, j.lines), false); err != nil {
				return 0, err
			}
		}
		select {
		case <-time.After(j.after):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		return int(j.code), emit(fmt.Appendf(nil, "job v1: exit %d\n", j.code), true)
	}
	text := "OCI runtime exec failed: exec failed: unable to start container process: no such file: " + strings.Join(append([]string{p.name}, p.args...), " ")
	return 127, emit([]byte(text), false)
}

// read returns all available input, and waits if there is none.
func (p *process) read(ctx context.Context) (input []byte, more bool, err error) {
	err = p.await(ctx, func() bool { return len(p.input) > 0 || p.closed })
	p.change(func() { input, p.input = p.input, nil })
	return input, len(input) > 0, err
}

func (p *process) await(ctx context.Context, so func() bool) error {
	for {
		p.mu.Lock()
		changed, done, ended := p.changed, so(), p.ended
		p.mu.Unlock()
		switch {
		case done:
			return nil
		case ended:
			return errors.New("hung up")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// End implements engine.Process.
func (p *process) End(context.Context) {
	p.change(func() { p.ended = true })
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	p.engine.calls["Process ended"]++
}
