package state

import (
	"cmp"
	"slices"
)

// ring holds the newest transactions, up to limit changes and at least one transaction. The cache's mutex guards it.
type ring struct {
	limit int
	floor int64 // everything after this revision is in txs
	size  int   // changes in txs
	txs   []Transaction
}

func (r *ring) push(tx Transaction) {
	r.txs = append(r.txs, tx)
	r.size += len(tx.Changes)
	drop := 0
	for r.size > r.limit && drop < len(r.txs)-1 {
		r.size -= len(r.txs[drop].Changes)
		r.floor = r.txs[drop].Rev
		drop++
	}
	if drop == 0 {
		return
	}
	// append moves the live part to a new array from time to time; the dropped transactions are released immediately.
	clear(r.txs[:drop])
	r.txs = r.txs[drop:]
}

// after returns a copy of up to n transactions after rev; ok is false if some of them have been dropped.
func (r *ring) after(rev int64, n int) (txs []Transaction, ok bool) {
	if rev < r.floor {
		return nil, false
	}
	i, found := slices.BinarySearchFunc(r.txs, rev, func(tx Transaction, rev int64) int { return cmp.Compare(tx.Rev, rev) })
	if found {
		i++
	}
	return slices.Clone(r.txs[i:min(i+n, len(r.txs))]), true
}
