// Package endpoints knows the addresses of a node's services that may receive requests.
package endpoints

import (
	"maps"
	"sync"
)

// Table holds the addresses of this node's services that may receive requests: those whose container runs and is
// healthy. The ingress acquires an address for each request and releases it at the end. An address that was removed gets no
// new requests, and its container is stopped only after the current requests have ended.
type Table struct {
	drained func(project string) // called after the last request that a project waits for

	mu       sync.Mutex
	projects map[string]map[string]string // project -> service -> IP
	changed  chan struct{}                // closed at the next change
	serving  map[string]int               // requests in flight, by IP; no entry for 0
	waiting  map[string]string            // the project that waits for the last request of an IP
}

// New returns an empty table. drained is called after the last request that a project waits for.
func New(drained func(project string)) *Table {
	return &Table{
		projects: map[string]map[string]string{}, changed: make(chan struct{}),
		serving: map[string]int{}, waiting: map[string]string{}, drained: drained,
	}
}

// IP returns the address of a service that may receive requests.
func (e *Table) IP(project, service string) (ip string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ip, ok = e.projects[project][service]
	return ip, ok
}

// Acquire returns the address of a service for one request. The request counts until release is called, which may be called
// more than once. Lookup and count are atomic, so no request gets an address after Busy has found it unused.
func (e *Table) Acquire(project, service string) (ip string, release func(), ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ip, ok = e.projects[project][service]; !ok {
		return "", nil, false
	}
	e.serving[ip]++
	return ip, sync.OnceFunc(func() { e.release(ip) }), true
}

func (e *Table) release(ip string) {
	e.mu.Lock()
	e.serving[ip]--
	idle := e.serving[ip] <= 0
	project, waits := e.waiting[ip]
	if idle {
		delete(e.serving, ip)
		delete(e.waiting, ip)
	}
	e.mu.Unlock()
	if idle && waits {
		e.drained(project)
	}
}

// Busy reports whether an address has requests in flight. If so, the project is notified when they have ended.
func (e *Table) Busy(ip, project string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.serving[ip] == 0 {
		return false
	}
	e.waiting[ip] = project
	return true
}

// Changed returns a channel that is closed at the next change.
func (e *Table) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// Set replaces all services of a project atomically. No services removes the project.
func (e *Table) Set(project string, services map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if maps.Equal(e.projects[project], services) {
		return
	}
	if len(services) == 0 {
		delete(e.projects, project)
	} else {
		e.projects[project] = services
	}
	close(e.changed)
	e.changed = make(chan struct{})
}
