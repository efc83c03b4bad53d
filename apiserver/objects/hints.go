package objects

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// remembered is how many deliveries of one source are known again by their ids.
const remembered = 256

// Hints is what webhooks have said: hints for who listens, the last delivery of each source, and the ids that were
// seen. All of it is in memory: what is lost costs one poll.
type Hints struct {
	mu          sync.Mutex
	last        map[string]*carav1.Delivery // by source; immutable
	ids         map[string][]string         // by source, oldest first
	subscribers map[*subscriber]bool
}

// subscriber has one hint at most for each source.
type subscriber struct {
	owner   *Hints
	pending map[string]*carav1.Delivery // guarded by owner.mu
	wake    chan struct{}               // has room for one
}

func newHints() *Hints {
	return &Hints{
		last: map[string]*carav1.Delivery{},
		ids:  map[string][]string{}, subscribers: map[*subscriber]bool{},
	}
}

// Note keeps a delivery as the last one of its source.
func (h *Hints) Note(source string, d *carav1.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[source] = d
}

// of returns the last delivery of a source, or nil.
func (h *Hints) of(source string) *carav1.Delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last[source]
}

// Seen says whether a delivery with this id came before, and remembers it.
func (h *Hints) Seen(source, id string) bool {
	if id == "" {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.ids[source], id) {
		return true
	}
	ids := append(h.ids[source], id)
	h.ids[source] = ids[max(0, len(ids)-remembered):]
	return false
}

// Forget drops a source that is gone.
func (h *Hints) Forget(source string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.last, source)
	delete(h.ids, source)
}

// Tell gives every subscriber a hint.
func (h *Hints) Tell(source string, d *carav1.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subscribers {
		sub.pending[source] = d
		select {
		case sub.wake <- struct{}{}:
		default:
		}
	}
}

// Subscribe begins to keep hints for a subscriber until Unsubscribe.
func (h *Hints) Subscribe() *subscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := &subscriber{owner: h, pending: map[string]*carav1.Delivery{}, wake: make(chan struct{}, 1)}
	h.subscribers[sub] = true
	return sub
}

// Unsubscribe ends it.
func (h *Hints) Unsubscribe(sub *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, sub)
}

// Take returns what is pending, and empties it.
func (s *subscriber) Take() map[string]*carav1.Delivery {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	all := maps.Clone(s.pending)
	clear(s.pending)
	return all
}

// WatchHints streams the sources that a delivery has spoken of since the stream began. What comes faster than it is
// read is one hint for each source.
func (s Sources) WatchHints(_ *empty, stream carav1.SourceService_WatchHintsServer) error {
	sub := s.Live.Hints.Subscribe()
	defer s.Live.Hints.Unsubscribe(sub)
	for {
		for source, d := range sub.Take() {
			if err := stream.Send(&carav1.Hint{Source: source, Delivery: d}); err != nil {
				return err
			}
		}
		select {
		case <-sub.wake:
		case <-s.DB.Draining:
			return state.ErrDraining()
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}
