package agent

import (
	"maps"
	"sync"
)

// Endpoints are the services of this node that may get requests, with their addresses: those whose container runs and
// is healthy. The ingress asks it at each request.
type Endpoints struct {
	mu       sync.RWMutex
	projects map[string]map[string]string // project -> service -> IP
	changed  chan struct{}                // closed at the next change
}

func newEndpoints() *Endpoints {
	return &Endpoints{projects: map[string]map[string]string{}, changed: make(chan struct{})}
}

// IP returns the address of a service that may get requests.
func (e *Endpoints) IP(project, service string) (ip string, ok bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	ip, ok = e.projects[project][service]
	return ip, ok
}

// Changed returns a channel that is closed at the next change.
func (e *Endpoints) Changed() <-chan struct{} {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.changed
}

// set replaces a project's services; none takes it out.
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
