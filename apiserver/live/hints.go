package live

import (
	"maps"
	"slices"
	"sync"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// remembered is how many delivery IDs are kept for each source.
const remembered = 256

// Hints holds what webhooks have reported: hints for subscribers, the last delivery of each source, and the IDs of
// deliveries. It is only in memory: if a hint is lost, the next poll finds the change.
type Hints struct {
	noted func(source string) // hears of what this server has got; nil if nobody does

	mu          sync.Mutex
	last        map[string]*carav1.Delivery // by source; immutable
	own         map[string]ownDeliveries    // by source: what this server has got itself
	heard       map[origin]time.Time        // the last hint of each other server, by its clock
	ids         map[string][]string         // by source, oldest first
	subscribers map[*Subscriber]bool
}

// ownDeliveries are the last deliveries of a source at this server: any, and the last one that was accepted.
type ownDeliveries struct{ last, hint *carav1.Delivery }

// origin is a source at another server.
type origin struct{ server, source string }

// Subscriber has at most one pending hint for each source.
type Subscriber struct {
	owner   *Hints
	pending map[string]*carav1.Delivery // guarded by owner.mu
	Wake    chan struct{}               // has room for one
}

// NewHints returns hints without a delivery.
func NewHints() *Hints {
	return &Hints{
		last: map[string]*carav1.Delivery{}, own: map[string]ownDeliveries{}, heard: map[origin]time.Time{},
		ids: map[string][]string{}, subscribers: map[*Subscriber]bool{},
	}
}

// Note stores a delivery as the last one of its source.
func (h *Hints) Note(source string, d *carav1.Delivery) {
	h.mu.Lock()
	own := h.own[source]
	own.last = d
	h.last[source], h.own[source] = d, own
	h.mu.Unlock()
	h.tellServers(source)
}

// tellServers tells the other servers of a delivery. mu must not be held.
func (h *Hints) tellServers(source string) {
	if h.noted != nil {
		h.noted(source)
	}
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
	h.remember(source, id)
	return false
}

// remember records the ID of a delivery. mu must be held.
func (h *Hints) remember(source, id string) {
	if id == "" {
		return
	}
	ids := append(h.ids[source], id)
	h.ids[source] = ids[max(0, len(ids)-remembered):]
}

// ofServer returns what this server has got itself.
func (h *Hints) ofServer(source string) (last, hint *carav1.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	own := h.own[source]
	return own.last, own.hint
}

// sources returns the sources with deliveries at this server.
func (h *Hints) sources() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.own))
}

// Forget drops a deleted source.
func (h *Hints) Forget(source string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.last, source)
	delete(h.own, source)
	maps.DeleteFunc(h.heard, func(o origin, _ time.Time) bool { return o.source == source })
	delete(h.ids, source)
}

// ForgetServer drops what is known of a server that has ended.
func (h *Hints) ForgetServer(server string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.heard, func(o origin, _ time.Time) bool { return o.server == server })
}

// Tell adds a hint for every subscriber, also those of other servers.
func (h *Hints) Tell(source string, d *carav1.Delivery) {
	h.mu.Lock()
	own := h.own[source]
	own.hint = d
	h.own[source] = own
	h.tell(source, d)
	h.mu.Unlock()
	h.tellServers(source)
}

// hear stores what another server has got, and tells the subscribers of a new hint.
func (h *Hints) hear(o origin, last, hint *carav1.Delivery) {
	source := o.source
	h.mu.Lock()
	defer h.mu.Unlock()
	if last != nil && !last.GetTime().AsTime().Before(h.last[source].GetTime().AsTime()) {
		h.last[source] = last
	}
	if hint == nil || hint.GetId() != "" && slices.Contains(h.ids[source], hint.GetId()) {
		return
	}
	if at := hint.GetTime().AsTime(); at.After(h.heard[o]) {
		h.heard[o] = at
		h.remember(source, hint.GetId())
		h.tell(source, hint)
	}
}

// tell adds a hint for the subscribers of this server. mu must be held.
func (h *Hints) tell(source string, d *carav1.Delivery) {
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
