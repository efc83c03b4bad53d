package fake

import (
	"context"
	"fmt"

	"github.com/caravanserai/cara/agent/engine"
)

// Logs implements engine.Streams.
func (e *Engine) Logs(ctx context.Context, id string, options engine.LogOptions, emit func(engine.LogLine) error) error {
	err := e.begin(ctx, "Logs")
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.calls["Logs ended"]++
	}()
	var c *container
	if err == nil {
		c, err = e.find(id)
	}
	if err != nil {
		e.mu.Unlock()
		return err
	}
	at := 0
	if options.Tail != 0 {
		at = max(0, len(c.log)-max(options.Tail, 0))
	}
	for {
		lines, wrote, running := c.log[at:], c.wrote, c.State == engine.StateRunning
		at = len(c.log)
		e.mu.Unlock()
		for _, l := range lines {
			if !options.Since.IsZero() && l.Time.Before(options.Since) || !options.Until.IsZero() && l.Time.After(options.Until) {
				continue
			}
			if err := emit(l); err != nil {
				return err
			}
		}
		if !options.Follow || !running {
			return nil
		}
		select {
		case <-wrote:
		case <-ctx.Done():
			return ctx.Err()
		}
		e.mu.Lock()
	}
}

// Events implements engine.Streams.
func (e *Engine) Events(ctx context.Context, labels map[string]string, subscribed func(), emit func(engine.Event)) error {
	if err := e.begin(ctx, "Events"); err != nil {
		e.mu.Unlock()
		return err
	}
	events := make(chan engine.Event, 256) // as many as the real engine keeps; it also drops events for slow readers
	e.listeners[events] = labels
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.listeners, events)
	}()
	subscribed()
	for {
		select {
		case event, open := <-events:
			if !open {
				return fmt.Errorf("read events: %w", engine.ErrUnavailable)
			}
			emit(event)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// emit sends an event. mu is held.
func (e *Engine) emit(c *container, action string) {
	for l, labels := range e.listeners {
		if has(c.Labels, labels) {
			select {
			case l <- engine.Event{Project: c.Labels["cara.project"], Action: action}:
			default:
			}
		}
	}
}
