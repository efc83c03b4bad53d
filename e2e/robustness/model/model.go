package model

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// Absent is the value of a project that does not exist or is being deleted. Every write has another value above it.
const Absent = 0

// Kind is what a client asked for.
type Kind string

// The kinds of calls.
const (
	Read   Kind = "read"
	Create Kind = "create" // only if the project does not exist
	Put    Kind = "put"    // in any case
	Swap   Kind = "swap"   // only if nothing has changed since a read
	Extend Kind = "extend" // changes another field of the spec, and keeps the value
	Remove Kind = "remove"
)

// Outcome is what a client learned.
type Outcome string

// The outcomes of calls.
const (
	Done     Outcome = "done"     // the value is what was read or written
	Missing  Outcome = "missing"  // the project does not exist
	Refused  Outcome = "refused"  // nothing was done, for a reason that the register does not have
	Exists   Outcome = "exists"   // a Create found a project
	Unknown  Outcome = "unknown"  // the answer was lost: the call was done, or not, or will be
	NotAsked Outcome = "notAsked" // no server got the call
)

// Call is one call about one project. From is the value that was read before a Swap.
type Call struct {
	Kind  Kind   `json:"kind"`
	Key   string `json:"key"`
	Value int    `json:"value,omitempty"`
	From  int    `json:"from,omitempty"`
}

// Result is the answer. Revision is the resourceVersion of the object in the answer.
type Result struct {
	Outcome  Outcome `json:"outcome"`
	Value    int     `json:"got,omitempty"`
	Revision int64   `json:"revision,omitempty"`
	Error    string  `json:"error,omitempty"`
	Odd      bool    `json:"odd,omitempty"` // an error that no fault explains
}

// step returns the values that a project may have after a call with this result: none if the result does not fit. A call with
// an unknown outcome may have done nothing.
func step(state, input, output any) []any {
	value, c, r := state.(int), input.(Call), output.(Result)
	there := value != Absent
	next, may := value, true // what the call does, and whether it does it
	switch c.Kind {
	case Read, Extend:
		may = there
	case Create:
		next, may = c.Value, !there
	case Put:
		next = c.Value
	case Swap:
		next, may = c.Value, value == c.From
	case Remove:
		next, may = Absent, there
	}
	switch r.Outcome {
	case Unknown:
		if may {
			return []any{value, next}
		}
		return []any{value}
	case Missing:
		return only(value, !there)
	case Exists:
		return only(value, there)
	case Done:
		return only(next, may && (c.Kind != Read || r.Value == value))
	case Refused, NotAsked:
	}
	return []any{value}
}

func only(value int, fits bool) []any {
	if fits {
		return []any{value}
	}
	return nil
}

// register is the model of all projects: a register for each.
func register() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{Absent} },
		Step: step,
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, op := range all {
				key := op.Input.(Call).Key
				byKey[key] = append(byKey[key], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		DescribeOperation: func(input, output any) string {
			c, r := input.(Call), output.(Result)
			return fmt.Sprintf("%s %s %d->%d: %s %d @%d", c.Kind, c.Key, c.From, c.Value, r.Outcome, r.Value, r.Revision)
		},
	}
	return m.ToModel()
}

// Verdict is the result of a check, with what a picture of it needs.
type Verdict struct {
	Result porcupine.CheckResult
	info   porcupine.LinearizationInfo
}

// Check looks for an order of the operations in which each of them takes effect between its start and its end. It gives up
// after a time.
func Check(ops []Operation, limit time.Duration) Verdict {
	var all []porcupine.Operation
	for _, op := range ops {
		all = append(all, porcupine.Operation{ClientId: op.Client, Input: op.Call, Call: op.Start, Output: op.Result, Return: op.End})
	}
	result, info := porcupine.CheckOperationsVerbose(register(), all, limit)
	return Verdict{result, info}
}

// OK reports whether there is such an order.
func (v Verdict) OK() bool { return v.Result == porcupine.Ok }

// Draw writes an HTML page that shows the operations and the longest orders that were found.
func (v Verdict) Draw(path string) error { return porcupine.VisualizePath(register(), v.info, path) }
