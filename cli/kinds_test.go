package cli

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestEventsAreInTheOrderOfTheirLastTime(t *testing.T) {
	at := func(reason string, first, last int64) *carav1.Event {
		return &carav1.Event{Reason: reason, FirstTime: timestamppb.New(time.Unix(first, 0)), LastTime: timestamppb.New(time.Unix(last, 0))}
	}
	got := ""
	for _, e := range byLastTime([]*carav1.Event{at("again ", 1, 9), at("once ", 2, 2), at("twice ", 3, 5), at("also ", 4, 5)}) {
		got += e.Reason
	}
	if want := "once twice also again "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
