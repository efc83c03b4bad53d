package live

import (
	"maps"
	"slices"
	"sync"

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
	subscribers map[*Subscriber]bool
}

// Subscriber has at most one pending hint for each source.
type Subscriber struct {
	owner   *Hints
	pending map[string]*carav1.Delivery // guarded by owner.mu
	Wake    chan struct{}               // has room for one
}

// NewHints returns hints without a delivery.
func NewHints() *Hints {
	return &Hints{
		last: map[string]*carav1.Delivery{},
		ids:  map[string][]string{}, subscribers: map[*Subscriber]bool{},
	}
}

// Note stores a delivery as the last one of its source.
func (h *Hints) Note(source string, d *carav1.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[source] = d
}

// Of returns the last delivery of a source, or nil.
func (h *Hints) Of(source string) *carav1.Delivery {
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
		case sub.Wake <- struct{}{}:
		default:
		}
	}
}

// Subscribe adds a subscriber that collects hints until Unsubscribe.
func (h *Hints) Subscribe() *Subscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := &Subscriber{owner: h, pending: map[string]*carav1.Delivery{}, Wake: make(chan struct{}, 1)}
	h.subscribers[sub] = true
	return sub
}

// Unsubscribe removes a subscriber.
func (h *Hints) Unsubscribe(sub *Subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, sub)
}

// Take returns the pending hints and clears them.
func (s *Subscriber) Take() map[string]*carav1.Delivery {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	all := maps.Clone(s.pending)
	clear(s.pending)
	return all
}
