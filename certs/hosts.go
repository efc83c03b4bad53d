package certs

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// hosts keeps which hosts projects want certificates for, and the stored state of each certificate. The name of a certificate is
// its host, or the wildcard. This process is the only one that changes the states, and it changes each of them in one goroutine
// at a time.
type hosts struct {
	wildcard string // empty if each host has its own certificate

	mu     sync.Mutex
	of     map[string][]string                 // by project: its hosts
	claims map[string]map[string]int           // by name: its hosts, and the number of projects of each
	states map[string]*carav1.CertificateOrder // by name; never changed in place
	busy   map[string]time.Time                // by name: the start of an order that is under way
	asking map[string]bool                     // names whose state a question may change
	ask    map[string]question                 // by name: the next question
	again  map[string]bool                     // names that look for a node, whose next try need not be waited for
}

// askPause is how long an order waits for a question about its host, and a question for an order.
const askPause = time.Second

// question is when the authority is asked next about a certificate, and how often it has not answered.
type question struct {
	at       time.Time
	failures int32
}

func newHosts(wildcard string) *hosts {
	return &hosts{
		wildcard: wildcard, of: map[string][]string{}, claims: map[string]map[string]int{}, states: map[string]*carav1.CertificateOrder{},
		busy: map[string]time.Time{}, asking: map[string]bool{}, ask: map[string]question{}, again: map[string]bool{},
	}
}

// wanted returns the hosts of a project whose certificates the authority issues.
func wanted(p *carav1.Project, hosts api.HostTemplate) []string {
	switch p.GetStatus().GetPhase() {
	case api.PhaseTerminating, api.PhaseTerminated:
		return nil
	}
	var all []string
	for _, in := range p.GetSpec().GetIngress() {
		host := hosts.Host(in.GetHost())
		if api.AutoTLS(in) && slices.Contains(p.GetStatus().GetHosts(), host) && !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all
}

// name returns the name of the certificate that a host gets.
func (h *hosts) name(host string) string {
	if h.wildcard != "" && api.WildcardOf(host) == h.wildcard {
		return h.wildcard
	}
	return host
}

// claim records the hosts of a project, and returns the names of the certificates of those that it has gained or lost.
func (h *hosts) claim(project string, now []string) (changed []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.of[project]
	if h.of[project] = now; len(now) == 0 {
		delete(h.of, project)
	}
	for _, host := range now {
		if !slices.Contains(before, host) {
			name := h.name(host)
			if h.claims[name] == nil {
				h.claims[name] = map[string]int{}
			}
			h.claims[name][host]++
			h.again[name] = h.states[name].GetBeforeOrder() // it may be the first one that leads to the cluster
			changed = append(changed, name)
		}
	}
	for _, host := range before {
		if !slices.Contains(now, host) {
			name := h.name(host)
			if h.claims[name][host]--; h.claims[name][host] == 0 {
				delete(h.claims[name], host)
			}
			if len(h.claims[name]) == 0 {
				delete(h.claims, name)
			}
			changed = append(changed, name)
		}
	}
	return changed
}

// covered returns the hosts that have a certificate of their own though the wildcard with this name stands for them.
func (h *hosts) covered(name string) (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name != h.wildcard {
		return nil
	}
	for host := range h.states {
		if host != name && h.name(host) == name {
			all = append(all, host)
		}
	}
	return all
}

// under returns the hosts that use the certificate with a name, sorted.
func (h *hosts) under(name string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.claims[name]))
}

// load replaces the states, and returns all hosts that have one or want one.
func (h *hosts) load(states []*carav1.CertificateOrder) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.states)
	var all []string
	for _, s := range states {
		h.states[s.GetMetadata().GetName()] = s
		all = append(all, s.GetMetadata().GetName())
	}
	for host := range h.claims {
		if h.states[host] == nil {
			all = append(all, host)
		}
	}
	return all
}

// set replaces the state of a host; nil removes it.
func (h *hosts) set(host string, s *carav1.CertificateOrder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !bytes.Equal(h.states[host].GetSerial(), s.GetSerial()) {
		delete(h.ask, host) // the answers were about another certificate
	}
	if h.states[host] = s; s == nil {
		delete(h.states, host)
	}
}

// startAsking returns the state of a host whose certificate the authority is to be asked about now. No order begins for it until
// endAsking. If there is nothing to ask now, it returns how long to wait; zero means until something changes.
func (h *hosts) startAsking(host, directory string, now time.Time) (*carav1.CertificateOrder, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.states[host]
	if !Asks(len(h.claims[host]) > 0, s, directory, now) {
		return nil, 0
	}
	if wait := h.ask[host].at.Sub(now); wait > 0 {
		return nil, wait
	}
	if _, ordering := h.busy[host]; ordering {
		return nil, askPause
	}
	h.asking[host] = true
	return s, 0
}

func (h *hosts) endAsking(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.asking, host)
}

// asked sets when the authority is asked again; after zero, it has not answered.
func (h *hosts) asked(host string, now time.Time, again time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := question{at: now.Add(again)}
	if again == 0 {
		q.failures = h.ask[host].failures + 1
		q.at = now.Add(backoff(askRetry, askMost, q.failures))
	}
	h.ask[host] = q
}

// look returns the hosts whose last attempt ended before an order, so that they are looked at again at once.
func (h *hosts) look() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for host := range h.claims {
		if s := h.states[host]; s.GetBeforeOrder() {
			h.again[host] = true
			all = append(all, host)
		}
	}
	return all
}

// decide decides about a host. If the decision is an order, the order counts from now on, until done.
func (h *hosts) decide(host, directory string, now time.Time) (Step, *carav1.CertificateOrder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.states[host]
	if h.asking[host] {
		return Step{Wait, now.Add(askPause), "the authority is asked when to renew the certificate"}, s
	}
	shared := h.states[h.name(host)]
	covered := h.name(host) != host && now.Before(shared.GetNotAfter().AsTime()) && shared.GetCertificateDirectory() == directory
	l := Look{Covered: covered, Wanted: len(h.claims[host]) > 0, State: s, Directory: directory, Now: now, Again: h.again[host]}
	delete(h.again, host)
	step := Decide(l)
	if step.Verb == Order || step.Verb == Renew {
		l.Room = Room(h.orders(), now, MostOrders(s, directory, now))
		if step = Decide(l); step.Verb != Wait {
			h.busy[host] = now
		}
	}
	return step, s
}

// done ends the order of a host.
func (h *hosts) done(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.busy, host)
}

// orders returns the times of all orders that are known. h.mu is held.
func (h *hosts) orders() []time.Time {
	var all []time.Time
	for _, s := range h.states {
		for _, at := range s.GetOrders() {
			all = append(all, at.AsTime())
		}
	}
	for _, at := range h.busy {
		all = append(all, at)
	}
	return all
}

// sameAddresses reports whether a change of a node changes neither its public addresses nor whether it is ready.
func sameAddresses(ch loop.Change) bool {
	before, _ := ch.Old.(*carav1.Node)
	now, _ := ch.New.(*carav1.Node)
	return before.GetStatus().GetState() == now.GetStatus().GetState() &&
		slices.Equal(before.GetStatus().GetInfo().GetPublicAddresses(), now.GetStatus().GetInfo().GetPublicAddresses())
}
