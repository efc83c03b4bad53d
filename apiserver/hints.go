package apiserver

import (
	"maps"
	"slices"
	"sync"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// remembered is how many deliveries of one source are known again by their ids.
const remembered = 256

// hints is what webhooks have said: hints for who listens, the last delivery of each source, and the ids that were
// seen. All of it is in memory: what is lost costs one poll.
type hints struct {
	reading *turns // of deliveries that are being read

	mu          sync.Mutex
	last        map[string]*carav1.Delivery // by source; immutable
	ids         map[string][]string         // by source, oldest first
	subscribers map[*subscriber]bool
}

// subscriber has one hint at most for each source.
type subscriber struct {
	owner   *hints
	pending map[string]*carav1.Delivery // guarded by owner.mu
	wake    chan struct{}               // has room for one
}

func newHints() *hints {
	return &hints{
		reading: newTurns(maxWebhooks, maxWebhooksEach), last: map[string]*carav1.Delivery{},
		ids: map[string][]string{}, subscribers: map[*subscriber]bool{},
	}
}

// note keeps a delivery as the last one of its source.
func (h *hints) note(source string, d *carav1.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[source] = d
}

// of returns the last delivery of a source, or nil.
func (h *hints) of(source string) *carav1.Delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last[source]
}

// seen says whether a delivery with this id came before, and remembers it.
func (h *hints) seen(source, id string) bool {
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

// forget drops a source that is gone.
func (h *hints) forget(source string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.last, source)
	delete(h.ids, source)
}

// tell gives every subscriber a hint.
func (h *hints) tell(source string, d *carav1.Delivery) {
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

func (h *hints) subscribe() *subscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := &subscriber{owner: h, pending: map[string]*carav1.Delivery{}, wake: make(chan struct{}, 1)}
	h.subscribers[sub] = true
	return sub
}

func (h *hints) unsubscribe(sub *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, sub)
}

// take returns what is pending, and empties it.
func (s *subscriber) take() map[string]*carav1.Delivery {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	all := maps.Clone(s.pending)
	clear(s.pending)
	return all
}
