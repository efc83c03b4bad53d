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

// hints are what was heard of one source. The first in a while counts at once; in a storm of them each look at the
// source doubles the wait for the next one, so that a storm of any length costs a bounded number of looks, and the last
// of them sees the newest state.
type hints struct {
	mu   sync.Mutex
	now  bool      // look at once
	at   time.Time // look then; zero where nothing was heard
	last time.Time // when a hint was last followed
	gap  time.Duration
}

// soon asks for a look at once. It is for what the process itself knows, such as a file that was half-written.
func (h *hints) soon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = true
}

// heard takes a hint from outside, and returns how long to wait before it is followed.
func (h *hints) heard(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at.IsZero() {
		if h.at = h.last.Add(h.gap); now.Sub(h.at) >= h.gap {
			h.gap = 0 // it was quiet for long enough
		}
		if h.at.Before(now) {
			h.at = now
		}
	}
	return h.at.Sub(now)
}

// due reports whether a look is due, and if not, how long until it is; 0 if nothing was heard. What is due is taken.
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

// Poke says that there may be something new in a source: a hint, such as a webhook is. Unknown names do nothing: a
// source that was never looked at is looked at anyway.
func (s *Sources) Poke(name string) {
	s.mu.Lock()
	st := s.states[name]
	s.mu.Unlock()
	if st != nil {
		s.queue.AddAfter(name, st.hints.heard(s.cfg.Now()))
	}
}

// listen follows what webhooks say, and connects again whenever that ends. What is missed meanwhile, the next poll
// finds.
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
	defer cancel() // ends the stream on both sides, also where Recv returned an error of its own
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
