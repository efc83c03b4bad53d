// Package ondemand asks the server for the routes of hosts that the ingress needs and does not know, and decides which ones it
// forgets. It is a step of a request between its Host header, or the host of its TLS handshake, and its route.
//
// Invariants:
//
//   - Everything has a limit: the questions, the requests that wait for answers, the hosts that no project claims. So 100,000
//     unknown hosts cost no more than some thousand.
//   - The server tells each change of a host that it has been asked about, also of one that no project claims, until the agent
//     forgets the host. So an answer stays right, and is used until then.
//   - A host is forgotten first and told to the server afterwards. What the server sends about it in between is ignored (Expects).
//   - While the server is away, nothing is forgotten, and requests for hosts that are not known fail at once.
//   - A server of an older version sends the routes of all hosts. They are all used, and none is forgotten.
package ondemand

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/caravanserai/cara/api"
)

// Hosts are the hosts that the ingress does not know, and what the server is to be told.
type Hosts struct {
	limits  Limits
	table   func() []string
	results *prometheus.CounterVec
	news    chan struct{} // has an entry while Take returns something

	mu        sync.Mutex
	all       bool // the server sends all routes
	connected bool
	questions map[string]*question // by host
	waiting   int
	clients   map[string]int      // requests that wait, by client
	unknown   map[string]struct{} // hosts that no project claims; those that were used longer ago are in older
	older     map[string]struct{}
	ask       []string
	forget    map[string]struct{}
}

// question is a host that the server has not answered yet.
type question struct {
	done  chan struct{} // closed by the answer
	known bool          // set before done is closed
}

// New returns Hosts for an agent that is not connected. table returns the hosts in the table that the agent has asked for.
func New(limits Limits, table func() []string, metrics prometheus.Registerer) *Hosts {
	return &Hosts{
		limits: limits.withDefaults(), table: table, news: make(chan struct{}, 1), questions: map[string]*question{}, clients: map[string]int{},
		unknown: map[string]struct{}{}, older: map[string]struct{}{}, forget: map[string]struct{}{},
		results: promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "cara_ingress_host_questions_total",
			Help: "Requests for hosts whose routes the agent did not know, by what became of them: Known, Unknown, Away, Busy or Late.",
		}, []string{"result"}),
	}
}

// Limits returns the limits with their defaults.
func (h *Hosts) Limits() Limits { return h.limits }

// Results of Find, besides the verbs Unknown, Away and Busy.
const (
	Known Verb = "Known" // the table has the host now
	Late  Verb = "Late"  // the server has not answered in time, or the client has left
)

// Find returns what became of a request for a host that is not in the table. It waits for the server if it has to.
func (h *Hosts) Find(ctx context.Context, host, client string) Verb {
	result := h.find(ctx, host, client)
	h.results.WithLabelValues(string(result)).Inc()
	return result
}

func (h *Hosts) find(ctx context.Context, host, client string) Verb {
	h.mu.Lock()
	q := h.questions[host]
	verb := Decide(Look{
		Name: api.IsHost(host), All: h.all, Connected: h.connected, Known: h.refused(host), Asked: q != nil,
		Questions: len(h.questions), Waiting: h.waiting, ClientWaiting: h.clients[client],
	}, h.limits)
	switch verb {
	case Ask:
		q = &question{done: make(chan struct{})}
		h.questions[host], h.ask = q, append(h.ask, host)
		delete(h.forget, host) // the server answers also if it has not forgotten it
		h.tell()
	case Wait:
	default:
		h.mu.Unlock()
		return verb
	}
	h.waiting, h.clients[client] = h.waiting+1, h.clients[client]+1
	h.mu.Unlock()
	defer h.left(client)
	patience := time.NewTimer(h.limits.Patience)
	defer patience.Stop()
	select {
	case <-q.done:
		if q.known {
			return Known
		}
		return Unknown
	case <-patience.C:
	case <-ctx.Done():
	}
	return Late
}

// left ends the wait of a request.
func (h *Hosts) left(client string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting--
	if h.clients[client]--; h.clients[client] == 0 {
		delete(h.clients, client)
	}
}

// refused reports whether no project claims a host, and notes that it was used. h.mu is held.
func (h *Hosts) refused(host string) bool {
	if _, ok := h.unknown[host]; ok {
		return true
	}
	if _, ok := h.older[host]; !ok {
		return false
	}
	delete(h.older, host)
	h.refuse(host)
	return true
}

// refuse notes that no project claims a host. The hosts that were used longest ago are forgotten. h.mu is held.
func (h *Hosts) refuse(host string) {
	if len(h.unknown) >= h.limits.Unknown/2 {
		h.drop(slices.Collect(maps.Keys(h.older)))
		h.unknown, h.older = map[string]struct{}{}, h.unknown
	}
	h.unknown[host] = struct{}{}
}

// Forget tells the server that the ingress has forgotten hosts.
func (h *Hosts) Forget(hosts []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(hosts)
}

func (h *Hosts) drop(hosts []string) {
	if !h.connected || len(hosts) == 0 {
		return // the next connection begins with what is known
	}
	for _, host := range hosts {
		h.forget[host] = struct{}{}
	}
	h.tell()
}

func (h *Hosts) tell() {
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// Expects reports whether the server's routes of a host that is not in the table are to be used. Those of a host that was
// forgotten are not: the server may not know that yet. If the server sends the routes of all hosts, none is forgotten.
func (h *Hosts) Expects(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, unknown := h.unknown[host]
	_, older := h.older[host]
	return h.all || unknown || older || h.questions[host] != nil
}

// Answer ends the questions about hosts. known are in the table now; unknown were in it, or were asked about, and no project
// claims them.
func (h *Hosts) Answer(known, unknown []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, host := range known {
		delete(h.unknown, host)
		delete(h.older, host)
		h.answer(host, true)
	}
	for _, host := range unknown {
		if h.answer(host, false); !h.refused(host) {
			h.refuse(host)
		}
	}
}

func (h *Hosts) answer(host string, known bool) {
	if q := h.questions[host]; q != nil {
		delete(h.questions, host)
		q.known = known
		close(q.done)
	}
}

// Begin returns the hosts that the first message of a new connection asks about: those in the table, and those that requests wait
// for.
func (h *Hosts) Begin() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ask = nil
	clear(h.forget)
	return append(h.table(), slices.Sorted(maps.Keys(h.questions))...)
}

// Connected notes that the server can be asked. If it sends the routes of all hosts, it need not be asked.
func (h *Hosts) Connected(onDemand bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connected, h.all = true, !onDemand
}

// MayForget reports whether hosts can be forgotten: the server can be asked for them again.
func (h *Hosts) MayForget() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.connected && !h.all
}

// Ended notes that the server cannot be asked any more. It does not tell changes either, so what it said about hosts that no
// project claims does not count.
func (h *Hosts) Ended() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connected = false
	clear(h.unknown)
	clear(h.older)
}

// News is ready when Take returns something.
func (h *Hosts) News() <-chan struct{} { return h.news }

// Take returns what the next message to the server has to say.
func (h *Hosts) Take() (ask, forget []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	const most = 10_000 // of one message
	ask, h.ask = h.ask, nil
	for host := range h.forget {
		if len(forget) == most {
			h.tell()
			break
		}
		forget = append(forget, host)
		delete(h.forget, host)
	}
	return ask, forget
}
