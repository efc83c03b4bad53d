package live

import (
	"maps"
	"slices"
	"sync"
)

// Latest holds the newest value for each object of a kind. The values change with every heartbeat or poll and are not
// stored, so there are none after a restart. The zero value is ready to use.
type Latest[V any] struct {
	noted func(name string) // hears of values that this server has learned; nil if nobody does

	mu   sync.RWMutex
	last map[string]learned[V] // by name; the values are immutable
}

// learned is a value, and the server that has learned it; "" is this one.
type learned[V any] struct {
	value V
	from  string
}

// Note stores a new value that this server has learned.
func (l *Latest[V]) Note(name string, v V) {
	l.set(name, v, "")
	if l.noted != nil {
		l.noted(name)
	}
}

// hear stores a value that another server has learned.
func (l *Latest[V]) hear(name string, v V, from string) { l.set(name, v, from) }

func (l *Latest[V]) set(name string, v V, from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]learned[V]{}
	}
	l.last[name] = learned[V]{v, from}
}

// Of returns the newest value since the server's start, or the zero value.
func (l *Latest[V]) Of(name string) V {
	v, _ := l.of(name)
	return v
}

// of returns the newest value, and the server that has learned it.
func (l *Latest[V]) of(name string) (v V, from string) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	have := l.last[name]
	return have.value, have.from
}

// own returns the newest value if this server has learned it.
func (l *Latest[V]) own(name string) (v V, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	have, ok := l.last[name]
	if !ok || have.from != "" {
		return v, false
	}
	return have.value, true
}

// names returns the names of all objects that have a value.
func (l *Latest[V]) names() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Collect(maps.Keys(l.last))
}

// Forget drops a deleted object.
func (l *Latest[V]) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, name)
}
