package history

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// absent is the value of a project that is not there. Every write has another value above it.
const absent = 0

type kind int

const (
	read kind = iota
	write
	remove
	swap
)

// call is what a client asked for, about one project. from is what it had read before a swap.
type call struct {
	kind        kind
	key         string
	value, from int
}

type outcome int

const (
	done     outcome = iota // value is what was read
	missing                 // there is no such project
	conflict                // somebody was faster, or the status has changed: nothing was done
	unknown                 // the connection broke: it was done, or not, or will be
)

type result struct {
	outcome outcome
	value   int
}

// step is one register: which values may follow a call with such a result; none where the result does not fit. A call
// whose outcome nobody knows may have done nothing.
func step(state, input, output any) []any {
	value, c, r := state.(int), input.(call), output.(result)
	next, fits := value, false
	switch c.kind {
	case read:
		fits = r.outcome == missing && value == absent || r.outcome == done && value == r.value
	case write:
		next, fits = c.value, r.outcome == done
	case remove:
		next, fits = absent, (r.outcome == missing) == (value == absent)
	case swap:
		if fits = value == c.from && r.outcome == done; value == c.from {
			next = c.value
		}
	}
	switch {
	case r.outcome == conflict:
		return []any{value}
	case r.outcome == unknown:
		return []any{value, next}
	case fits:
		return []any{next}
	}
	return nil
}

func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{absent} },
		Step: step,
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, op := range all {
				key := op.Input.(call).key
				byKey[key] = append(byKey[key], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
	}
	return m.ToModel()
}

// The checker itself: it accepts what may happen, and finds each kind of mistake.
func TestModelFindsMistakes(t *testing.T) {
	op := func(from, to int64, c call, r result) porcupine.Operation {
		c.key = "p"
		return porcupine.Operation{Input: c, Call: from, Output: r, Return: to}
	}
	const never = 1 << 60
	for name, tt := range map[string]struct {
		ops  []porcupine.Operation
		want bool
	}{
		"write then read": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{}), op(3, 4, call{kind: read}, result{value: 7}),
		}, true},
		"a lost write": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{}), op(3, 4, call{kind: read}, result{outcome: missing}),
		}, false},
		"an unknown write that was done": {[]porcupine.Operation{
			op(1, never, call{kind: write, value: 7}, result{outcome: unknown}), op(3, 4, call{kind: read}, result{value: 7}),
		}, true},
		"an unknown write that was not done": {[]porcupine.Operation{
			op(1, never, call{kind: write, value: 7}, result{outcome: unknown}), op(3, 4, call{kind: read}, result{outcome: missing}),
		}, true},
		"an unknown write that ended undone": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{outcome: unknown}), op(3, 4, call{kind: read}, result{outcome: missing}),
		}, true},
		"an unknown write that was done after its end": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{outcome: unknown}), op(3, 4, call{kind: read}, result{outcome: missing}),
			op(5, 6, call{kind: read}, result{value: 7}),
		}, false},
		"a read of the past": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{}), op(3, 4, call{kind: write, value: 8}, result{}), op(5, 6, call{kind: read}, result{value: 7}),
		}, false},
		"two swaps of one value": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{}),
			op(3, 6, call{kind: swap, from: 7, value: 8}, result{}), op(4, 5, call{kind: swap, from: 7, value: 9}, result{}),
		}, false},
		"a swap that lost": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{}),
			op(3, 6, call{kind: swap, from: 7, value: 8}, result{}), op(4, 5, call{kind: swap, from: 7, value: 9}, result{outcome: conflict}),
			op(7, 8, call{kind: read}, result{value: 8}),
		}, true},
		"a delete that was taken back": {[]porcupine.Operation{
			op(1, 2, call{kind: write, value: 7}, result{}), op(3, 4, call{kind: remove}, result{}), op(5, 6, call{kind: read}, result{value: 7}),
		}, false},
	} {
		got := porcupine.CheckOperationsTimeout(model(), tt.ops, 10*time.Second) == porcupine.Ok
		if got != tt.want {
			t.Errorf("%s: accepted is %v, want %v", name, got, tt.want)
		}
	}
}
