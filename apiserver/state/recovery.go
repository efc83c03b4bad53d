package state

import (
	"fmt"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// Recovered returns the ID of the last recovery of the cluster, or "" if there was none.
func Recovered(r Reader) string {
	rec, _ := Get[*carav1.Recovery](r, RecoveryName)
	return rec.GetId()
}

// RecoveryOp returns the operation that records a new recovery: the state may be older than what nodes have obeyed. Nothing else
// writes this key, and no server runs meanwhile or has begun to serve.
func RecoveryOp() (store.Op, error) {
	value, err := Encode(&carav1.Recovery{Metadata: &carav1.ObjectMeta{Name: RecoveryName}, Id: NewUID()})
	if err != nil {
		return store.Op{}, fmt.Errorf("record the recovery: %w", err)
	}
	return store.Op{Key: Key(KindRecovery, RecoveryName), Value: value}, nil
}
