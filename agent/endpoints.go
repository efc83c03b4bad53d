package agent

import (
	"maps"
	"sync"
)

// Endpoints are the services of this node that may get requests, with their addresses: those whose container runs and
// is healthy. The ingress asks it at each request, and says when the request has ended: an address that has left gets
// no new one, and its container its signal only after those that it had been given.
type Endpoints struct {
	drained func(project string) // called when the last request has ended that a project waits for

	mu       sync.Mutex
	projects map[string]map[string]string // project -> service -> IP
	changed  chan struct{}                // closed at the next change
	serving  map[string]int               // requests in flight, by IP; none where there are none
	waiting  map[string]string            // projects that wait for the last request of an IP
}

func newEndpoints(drained func(project string)) *Endpoints {
	return &Endpoints{
		projects: map[string]map[string]string{}, changed: make(chan struct{}),
		serving: map[string]int{}, waiting: map[string]string{}, drained: drained,
	}
}

// IP returns the address of a service that may get requests.
func (e *Endpoints) IP(project, service string) (ip string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ip, ok = e.projects[project][service]
	return ip, ok
}

// Acquire returns the address of a service for one request. It counts until release is called, which may be more than
// once. Looking and counting are one: an address that leaves is never given to a request that nobody waits for.
func (e *Endpoints) Acquire(project, service string) (ip string, release func(), ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ip, ok = e.projects[project][service]; !ok {
		return "", nil, false
	}
	e.serving[ip]++
	return ip, sync.OnceFunc(func() { e.release(ip) }), true
}

func (e *Endpoints) release(ip string) {
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

// busy says whether requests of an address have not ended. Where that is so, the project hears when they have.
func (e *Endpoints) busy(ip, project string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.serving[ip] == 0 {
		return false
	}
	e.waiting[ip] = project
	return true
}

// Changed returns a channel that is closed at the next change.
func (e *Endpoints) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// set replaces a project's services, all at once; none takes it out.
func (e *Endpoints) set(project string, services map[string]string) {
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
