package state

import (
	"context"
	"errors"
	"testing"
)

// TestWaitLeavesNothing: a call that names a revision which never comes leaves no memory behind.
func TestWaitLeavesNothing(t *testing.T) {
	c := NewCache(10)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := c.Wait(ended, 1<<62); !errors.Is(err, context.Canceled) {
		t.Errorf("it waits for a revision that never comes: %v", err)
	}
	if len(c.waiters) != 0 {
		t.Errorf("%d waiters are left", len(c.waiters))
	}
}
