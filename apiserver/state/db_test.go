package state

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/store"
)

// TestAwaitNewer: a server that catches up waits for the revision that a commit met, and not only for the next one.
func TestAwaitNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &DB{Cache: NewCache(10), Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		done := make(chan error, 1)
		go func() { done <- d.awaitNewer(t.Context(), 5, &store.ConflictError{Key: "nodes/n1", Want: 4, Have: 9}) }()
		for rev := int64(6); rev <= 8; rev++ {
			d.Cache.Apply(Transaction{Rev: rev})
		}
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("it ends before the cache has revision 9: %v", err)
		default:
		}
		d.Cache.Apply(Transaction{Rev: 9})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
