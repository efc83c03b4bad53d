package live

import (
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

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

func TestForgetServer(t *testing.T) {
	h := NewHints()
	for _, server := range []string{"a", "b"} {
		h.hear(origin{server, "shop"}, nil, &carav1.Delivery{Time: timestamppb.Now()})
	}
	h.ForgetServer("a")
	if _, kept := h.heard[origin{"b", "shop"}]; len(h.heard) != 1 || !kept {
		t.Errorf("kept %v", h.heard)
	}
}
