package endpoints

import (
	"slices"
	"testing"
)

func TestBusy(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(e *Table) (end func()) // what is in flight when the service leaves, and how it ends
		busy bool
		told []string // the projects that hear of the end
	}{
		"nothing in flight": {func(*Table) func() { return func() {} }, false, nil},
		"one that ends": {func(e *Table) func() {
			_, release, _ := e.Acquire("p", "a")
			return release
		}, true, []string{"p"}},
		"the last one counts": {func(e *Table) func() {
			_, first, _ := e.Acquire("p", "a")
			_, second, _ := e.Acquire("p", "a")
			return func() { first(); second() }
		}, true, []string{"p"}},
		"one that is released twice": {func(e *Table) func() {
			_, first, _ := e.Acquire("p", "a")
			e.Acquire("p", "a")
			return func() { first(); first() }
		}, true, nil},
		"one that ended before": {func(e *Table) func() {
			_, release, _ := e.Acquire("p", "a")
			release()
			return release
		}, false, nil},
		"another address": {func(e *Table) func() {
			_, release, _ := e.Acquire("p", "b")
			return release
		}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			e := New(func(project string) { told = append(told, project) })
			e.Set("p", map[string]string{"a": "10.0.0.2", "b": "10.0.0.3"})
			end := c.edit(e)
			e.Set("p", nil)
			if _, _, ok := e.Acquire("p", "a"); ok {
				t.Error("a request was given an address that has left")
			}
			if busy := e.Busy("10.0.0.2", "p"); busy != c.busy {
				t.Errorf("busy: %v, want %v", busy, c.busy)
			}
			end()
			if !slices.Equal(told, c.told) {
				t.Errorf("told %v, want %v", told, c.told)
			}
		})
	}
}
