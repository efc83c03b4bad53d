package live

import (
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestHintsCoalesceForEachSource(t *testing.T) {
	h := NewHints()
	sub := h.Subscribe()
	for range 200 {
		h.Tell("a", &carav1.Delivery{})
	}
	h.Tell("b", &carav1.Delivery{})
	if got := len(sub.Take()); got != 2 {
		t.Errorf("%d hints, want one for each of 2 sources", got)
	}
	if h.Seen("a", "1") || !h.Seen("a", "1") || h.Seen("b", "1") || h.Seen("a", "") || h.Seen("a", "") {
		t.Error("an id is known again for its own source only, and an empty one never")
	}
}
