package model

import (
	"testing"
	"time"
)

// TestCheckFindsMistakes: the model accepts what may happen, and finds each kind of mistake.
func TestCheckFindsMistakes(t *testing.T) {
	op := func(from, to int64, kind Kind, value, expected int, r Result) Operation {
		return Operation{Start: from, End: to, Call: Call{Kind: kind, Key: "p", Value: value, From: expected}, Result: r}
	}
	done, missing, unknown := Result{Outcome: Done}, Result{Outcome: Missing}, Result{Outcome: Unknown}
	saw := func(value int) Result { return Result{Outcome: Done, Value: value} }
	for name, tt := range map[string]struct {
		ops  []Operation
		want bool
	}{
		"put then read":                      {[]Operation{op(1, 2, Put, 7, 0, done), op(3, 4, Read, 0, 0, saw(7))}, true},
		"a lost write":                       {[]Operation{op(1, 2, Put, 7, 0, done), op(3, 4, Read, 0, 0, missing)}, false},
		"an unknown write that was done":     {[]Operation{op(1, Never, Put, 7, 0, unknown), op(3, 4, Read, 0, 0, saw(7))}, true},
		"an unknown write that was not done": {[]Operation{op(1, Never, Put, 7, 0, unknown), op(3, 4, Read, 0, 0, missing)}, true},
		"an unknown write after its end": {[]Operation{
			op(1, 2, Put, 7, 0, unknown), op(3, 4, Read, 0, 0, missing), op(5, 6, Read, 0, 0, saw(7)),
		}, false},
		"a read of the past": {[]Operation{op(1, 2, Put, 7, 0, done), op(3, 4, Put, 8, 0, done), op(5, 6, Read, 0, 0, saw(7))}, false},
		"two swaps of one value": {[]Operation{
			op(1, 2, Put, 7, 0, done), op(3, 6, Swap, 8, 7, done), op(4, 5, Swap, 9, 7, done),
		}, false},
		"a swap that lost": {[]Operation{
			op(1, 2, Put, 7, 0, done), op(3, 6, Swap, 8, 7, done), op(4, 5, Swap, 9, 7, Result{Outcome: Refused}), op(7, 8, Read, 0, 0, saw(8)),
		}, true},
		"two creations":                {[]Operation{op(1, 4, Create, 7, 0, done), op(2, 3, Create, 8, 0, done)}, false},
		"a creation that found one":    {[]Operation{op(1, 4, Create, 7, 0, done), op(2, 3, Create, 8, 0, Result{Outcome: Exists})}, true},
		"a creation that found nobody": {[]Operation{op(2, 3, Create, 8, 0, Result{Outcome: Exists})}, false},
		"an extension of nothing":      {[]Operation{op(1, 2, Extend, 0, 0, done)}, false},
		"an extension keeps the value": {[]Operation{op(1, 2, Put, 7, 0, done), op(3, 4, Extend, 0, 0, done), op(5, 6, Read, 0, 0, saw(7))}, true},
		"a deletion that was undone":   {[]Operation{op(1, 2, Put, 7, 0, done), op(3, 4, Remove, 0, 0, done), op(5, 6, Read, 0, 0, saw(7))}, false},
		"a call that was never sent":   {[]Operation{op(1, 2, Put, 7, 0, Result{Outcome: NotAsked}), op(3, 4, Read, 0, 0, missing)}, true},
	} {
		if got := Check(tt.ops, time.Minute).OK(); got != tt.want {
			t.Errorf("%s: accepted is %v, want %v", name, got, tt.want)
		}
	}
}
