package plan

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestInForce: an override ends when its time is over, or when no source still declares what it was made against.
func TestInForce(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	until := func(d time.Duration) *carav1.Override { return &carav1.Override{Until: timestamppb.New(now.Add(d))} }
	for name, tt := range map[string]struct {
		o        *carav1.Override
		declared []string
		want     bool
	}{
		"none":                         {nil, nil, false},
		"a second before its end":      {until(time.Second), nil, true},
		"at its end":                   {until(0), nil, false},
		"a second after its end":       {until(-time.Second), nil, false},
		"without an end":               {&carav1.Override{}, []string{"h"}, true},
		"until git changes, same":      {&carav1.Override{UntilHash: "h"}, []string{"h"}, true},
		"until git changes, gone":      {&carav1.Override{UntilHash: "h"}, []string{""}, false},
		"until git changes, not known": {&carav1.Override{UntilHash: "h"}, nil, true},
		"until git changes, now":       {&carav1.Override{UntilHash: "h"}, []string{"i"}, false},
	} {
		if got := InForce(tt.o, now, tt.declared...); got != tt.want {
			t.Errorf("%s: stands is %v, want %v", name, got, tt.want)
		}
	}
}
