package agent

import (
	"context"
	"maps"
	"sync/atomic"
	"time"
)

// tools are the programs for data on this machine.
type tools struct {
	found atomic.Pointer[map[string]string] // versions by name; nil while unknown
	known chan struct{}                     // closed once found is known
}

// toolsEvery is how often the programs are looked for: an operator may install one at any time.
const toolsEvery = time.Minute

// watchTools looks for the programs until ctx ends. It requests a heartbeat if they changed.
func (m *machine) watchTools(ctx context.Context) error {
	ticker := time.NewTicker(toolsEvery)
	defer ticker.Stop()
	for {
		found := m.cfg.Tools(ctx)
		before := m.tools.found.Swap(&found)
		switch {
		case before == nil:
			close(m.tools.known)
		case !maps.Equal(*before, found):
			kick(m.beat)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
