package sources

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/internal/loop"
)

const (
	firstGap       = time.Second // after the first hint in a while: there is at most one look a second
	longestGap     = 4 * time.Second
	firstReconnect = 100 * time.Millisecond
	lastReconnect  = 30 * time.Second
)

// hints collects the hints about one source. The first hint after a quiet period takes effect immediately. While more
// arrive, each pass doubles the wait for the next one. So a burst of any length costs a bounded number of passes, and the
// last pass sees the newest state.
type hints struct {
	mu   sync.Mutex
	now  bool      // a pass is due immediately
	at   time.Time // a pass is due then; zero if there is no hint
	last time.Time // when a hint last caused a pass
	gap  time.Duration
}

// soon requests a pass immediately. It is for what the process itself knows, such as a half-written file.
func (h *hints) soon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = true
}

// heard records an external hint, and returns how long to wait before the pass.
func (h *hints) heard(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at.IsZero() {
		if h.at = h.last.Add(h.gap); now.Sub(h.at) >= h.gap {
			h.gap = 0 // quiet for long enough
		}
		if h.at.Before(now) {
			h.at = now
		}
	}
	return h.at.Sub(now)
}

// due reports whether a pass is due, and if not, in how long (0 if there is no hint). It consumes what is due.
func (h *hints) due(now time.Time) (due bool, in time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	due, h.now = h.now, false
	switch {
	case h.at.IsZero():
		return due, 0
	case h.at.After(now):
		return due, h.at.Sub(now)
	}
	h.at, h.last = time.Time{}, now
	h.gap = min(max(firstGap, 2*h.gap), longestGap)
	return true, 0
}

// Poke is a hint that a source may have changed, for example from a webhook. Unknown names are ignored: a source without a
// first pass gets one anyway.
func (s *Sources) Poke(name string) {
	s.mu.Lock()
	st := s.states[name]
	s.mu.Unlock()
	if st != nil {
		s.queue.AddAfter(name, st.hints.heard(s.cfg.Now()))
	}
}

// listen follows the hints of webhooks and reconnects whenever the stream ends. The next poll finds what it misses.
func (s *Sources) listen(ctx context.Context) {
	wait := loop.NewBackoff(firstReconnect, lastReconnect)
	for {
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		s.cfg.Logger.Debug("hints ended", "error", err)
		wait.Wait(ctx)
	}
}

func (s *Sources) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on both sides, even if Recv returned an error
	stream, err := s.client.WatchHints(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	for {
		hint, err := stream.Recv()
		if err != nil {
			return err
		}
		s.Poke(hint.GetSource())
	}
}
