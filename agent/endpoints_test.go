package agent

import (
	"slices"
	"testing"
)

func TestBusy(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(e *Endpoints) (end func()) // what is in flight when the service leaves, and how it ends
		busy bool
		told []string // the projects that hear of the end
	}{
		"nothing in flight": {func(*Endpoints) func() { return func() {} }, false, nil},
		"one that ends": {func(e *Endpoints) func() {
			_, release, _ := e.Acquire("p", "a")
			return release
		}, true, []string{"p"}},
		"the last one counts": {func(e *Endpoints) func() {
			_, first, _ := e.Acquire("p", "a")
			_, second, _ := e.Acquire("p", "a")
			return func() { first(); second() }
		}, true, []string{"p"}},
		"one that is released twice": {func(e *Endpoints) func() {
			_, first, _ := e.Acquire("p", "a")
			e.Acquire("p", "a")
			return func() { first(); first() }
		}, true, nil},
		"one that ended before": {func(e *Endpoints) func() {
			_, release, _ := e.Acquire("p", "a")
			release()
			return release
		}, false, nil},
		"another address": {func(e *Endpoints) func() {
			_, release, _ := e.Acquire("p", "b")
			return release
		}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			e := newEndpoints(func(project string) { told = append(told, project) })
			e.set("p", map[string]string{"a": "10.0.0.2", "b": "10.0.0.3"})
			end := c.edit(e)
			e.set("p", nil)
			if _, _, ok := e.Acquire("p", "a"); ok {
				t.Error("a request was given an address that has left")
			}
			if busy := e.busy("10.0.0.2", "p"); busy != c.busy {
				t.Errorf("busy: %v, want %v", busy, c.busy)
			}
			end()
			if !slices.Equal(told, c.told) {
				t.Errorf("told %v, want %v", told, c.told)
			}
		})
	}
}
