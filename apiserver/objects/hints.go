package objects

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// remembered is how many delivery IDs are kept for each source.
const remembered = 256

// Hints holds what webhooks have reported: hints for subscribers, the last delivery of each source, and the IDs of
// deliveries. It is only in memory: if a hint is lost, the next poll finds the change.
type Hints struct {
	mu          sync.Mutex
	last        map[string]*carav1.Delivery // by source; immutable
	ids         map[string][]string         // by source, oldest first
	subscribers map[*subscriber]bool
}

// subscriber has at most one pending hint for each source.
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

// Note stores a delivery as the last one of its source.
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

// Seen reports whether a delivery with this ID came before, and records the ID.
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

// Forget drops a deleted source.
func (h *Hints) Forget(source string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.last, source)
	delete(h.ids, source)
}

// Tell adds a hint for every subscriber.
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

// Subscribe adds a subscriber that collects hints until Unsubscribe.
func (h *Hints) Subscribe() *subscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := &subscriber{owner: h, pending: map[string]*carav1.Delivery{}, wake: make(chan struct{}, 1)}
	h.subscribers[sub] = true
	return sub
}

// Unsubscribe removes a subscriber.
func (h *Hints) Unsubscribe(sub *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, sub)
}

// Take returns the pending hints and clears them.
func (s *subscriber) Take() map[string]*carav1.Delivery {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	all := maps.Clone(s.pending)
	clear(s.pending)
	return all
}

// WatchHints streams the sources that had a delivery since the stream began. If deliveries arrive faster than they are
// read, they are merged to one hint for each source.
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
