package agent

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Endpoints are the services of this node that may get requests, with their addresses: those whose container runs and
// is healthy. The ingress asks it at each request, and says when the request has ended: an address that has left gets
// no new one, and its container its signal only after those that it had been given.
type Endpoints struct {
	mu       sync.Mutex
	projects map[string]map[string]string // project -> service -> IP
	changed  chan struct{}                // closed at the next change
	serving  map[string]int               // requests in flight, by IP; none where there are none
	drained  map[string]chan struct{}     // by IP: closed when its last request ends
}

func newEndpoints() *Endpoints {
	return &Endpoints{
		projects: map[string]map[string]string{}, changed: make(chan struct{}),
		serving: map[string]int{}, drained: map[string]chan struct{}{},
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
	defer e.mu.Unlock()
	if e.serving[ip]--; e.serving[ip] > 0 {
		return
	}
	delete(e.serving, ip)
	if drained, waited := e.drained[ip]; waited {
		close(drained)
		delete(e.drained, ip)
	}
}

// drain waits until the requests that an address was given have ended, or patience is over. One that has none is not
// waited for.
func (e *Endpoints) drain(ctx context.Context, ip string, patience time.Duration) {
	e.mu.Lock()
	if e.serving[ip] == 0 {
		e.mu.Unlock()
		return
	}
	drained := e.drained[ip]
	if drained == nil {
		drained = make(chan struct{})
		e.drained[ip] = drained
	}
	e.mu.Unlock()
	select {
	case <-drained:
	case <-time.After(patience):
	case <-ctx.Done():
	}
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
