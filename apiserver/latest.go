package apiserver

import "sync"

// latest has the last word on each object of a kind: what changes with every heartbeat or poll, and is never stored for
// that. After a restart there is none yet. The zero value is ready.
type latest[V any] struct {
	mu   sync.RWMutex
	last map[string]V // by name; the values are not changed any more
}

func (l *latest[V]) note(name string, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]V{}
	}
	l.last[name] = v
}

// of returns the last word since the server's start; the zero value where there was none.
func (l *latest[V]) of(name string) V {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last[name]
}

// forget drops an object that is gone.
func (l *latest[V]) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, name)
}
