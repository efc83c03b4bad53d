package apiserver

import (
	"context"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// leased is a store that knows the lease of one server. Transactions without a lease need none.
type leased struct {
	store.Store
	mu    sync.Mutex
	valid store.Lease
	with  int // transactions that had a lease
}

func (l *leased) Commit(ctx context.Context, t store.Txn) (int64, error) {
	l.mu.Lock()
	if t.Lease != (store.Lease{}) {
		l.with++
		if t.Lease != l.valid {
			l.mu.Unlock()
			return 0, store.ErrLeaseLost
		}
		t.Lease = store.Lease{}
	}
	l.mu.Unlock()
	return l.Store.Commit(ctx, t)
}

// TestLoopsWriteUnderTheirLease: all that a loop's calls write has the lease of its connection as a condition, so that a server that has
// lost it writes nothing more. Other callers need no lease.
func TestLoopsWriteUnderTheirLease(t *testing.T) {
	now, before := store.Lease{Name: "reconciler", Created: 7}, store.Lease{Name: "reconciler", Created: 3}
	st := &leased{valid: now}
	h := newHouse(t, func(cfg *Config) { st.Store, cfg.Store = cfg.Store, st })
	h.haveSource(t, "s")
	src, _ := state.Get[*carav1.Source](h.db.Cache, "s")
	write := func(lease store.Lease, revision string) error {
		conn, err := h.ClientUnder("reconciler", lease)
		if err != nil {
			t.Fatal(err)
		}
		st.with = 0
		_, err = carav1.NewSourceServiceClient(conn).UpdateSourceStatus(t.Context(), &carav1.UpdateSourceStatusRequest{
			Name: "s", Uid: src.GetMetadata().GetUid(), AttemptedRevision: &revision,
		})
		return err
	}
	if err := write(now, "a"); err != nil || st.with == 0 {
		t.Errorf("a write under the lease: %v, %d transactions had it", err, st.with)
	}
	if err := write(before, "b"); api.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "lost its lease") {
		t.Errorf("a write under a lost lease: %v", err)
	}
	if err := write(store.Lease{}, "c"); err != nil || st.with != 0 {
		t.Errorf("a write without a lease: %v, %d transactions had one", err, st.with)
	}
}
