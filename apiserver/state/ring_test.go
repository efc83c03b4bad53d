package state

import (
	"slices"
	"testing"
)

// The ring reports that it has everything after a revision if and only if the revision is not before its floor.
func TestRingFloor(t *testing.T) {
	r := ring{limit: 3, floor: 10}
	for rev := int64(11); rev <= 16; rev++ {
		r.push(Transaction{Rev: rev, Changes: make([]Change, 1)})
	}
	for _, tt := range []struct {
		after int64
		ok    bool
		want  []int64
	}{
		{11, false, nil},
		{12, false, nil},
		{13, true, []int64{14, 15, 16}},
		{14, true, []int64{15, 16}},
		{16, true, []int64{}},
	} {
		txs, ok := r.after(tt.after, 10)
		got := []int64{}
		for _, tx := range txs {
			got = append(got, tx.Rev)
		}
		if ok != tt.ok || ok && !slices.Equal(got, tt.want) {
			t.Errorf("after %d: %v, %v; want %v, %v", tt.after, got, ok, tt.want, tt.ok)
		}
	}
}
