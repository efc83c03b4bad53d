package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestDrain(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(e *Endpoints, cancel func()) // what happens, beside the drain
		want time.Duration
	}{
		"nothing in flight": {func(*Endpoints, func()) {}, 0},
		"one that ends": {func(e *Endpoints, _ func()) {
			_, release, _ := e.Acquire("p", "a")
			time.AfterFunc(time.Second, release)
		}, time.Second},
		"the last one counts": {func(e *Endpoints, _ func()) {
			for n := range 3 {
				_, release, _ := e.Acquire("p", "a")
				time.AfterFunc(time.Duration(n)*time.Second, release)
			}
		}, 2 * time.Second},
		"one that is released twice": {func(e *Endpoints, _ func()) {
			_, first, _ := e.Acquire("p", "a")
			_, second, _ := e.Acquire("p", "a")
			first()
			first()
			time.AfterFunc(time.Second, second)
		}, time.Second},
		"one that does not end": {func(e *Endpoints, _ func()) { e.Acquire("p", "a") }, 5 * time.Second},
		"another address":       {func(e *Endpoints, _ func()) { e.Acquire("p", "b") }, 0},
		"the agent stops": {func(e *Endpoints, cancel func()) {
			e.Acquire("p", "a")
			time.AfterFunc(time.Second, cancel)
		}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				e := newEndpoints()
				e.set("p", map[string]string{"a": "10.0.0.2", "b": "10.0.0.3"})
				c.edit(e, cancel)
				e.set("p", nil)
				if _, _, ok := e.Acquire("p", "a"); ok {
					t.Error("a request was given an address that has left")
				}
				begun := time.Now()
				e.drain(ctx, "10.0.0.2", 5*time.Second)
				if took := time.Since(begun); took != c.want {
					t.Errorf("drained after %s, want %s", took, c.want)
				}
			})
		})
	}
}
