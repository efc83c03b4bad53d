package fake

import (
	"context"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// StatsEvery is the interval between the figures of a container.
const StatsEvery = 20 * time.Millisecond

// Stats implements engine.Streams. Every container has the same usage.
func (e *Engine) Stats(ctx context.Context, id string, follow bool, emit func(engine.ContainerUsage)) error {
	for {
		err := e.begin(ctx, "Stats")
		var c *container
		if err == nil {
			c, err = e.find(id)
		}
		running := err == nil && c.State == engine.StateRunning
		e.mu.Unlock()
		if err != nil || !running && !follow {
			return err
		}
		select {
		case <-time.After(StatsEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
		if running {
			emit(engine.ContainerUsage{CPUMillis: 250, CPUTime: time.Minute, Memory: 64 << 20, MemoryLimit: 8 << 30, Received: 1000, Sent: 2000, PIDs: 3})
		}
		if !follow {
			return nil
		}
	}
}
