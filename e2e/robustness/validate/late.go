package validate

import (
	"slices"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// late finds writes of a server that another one has replaced: while a fault kept the server silent for longer than its lease,
// another server wrote, and then a call that the silent one had got before the end of the fault was still written by it. Once it
// is a standby, it passes such calls on to the other server; its log does not have them.
func late(h *model.History, line *timeline) []string {
	p := &problems{}
	written := map[string]map[int]model.Event{} // by project and value
	for _, r := range line.revisions {
		for key, e := range line.changes[r] {
			if written[key] == nil {
				written[key] = map[int]model.Event{}
			}
			if _, known := written[key][e.Value]; !known && e.Value != model.Absent {
				written[key][e.Value] = e
			}
		}
	}
	for i, f := range h.Faults {
		if f.Server == nil {
			continue
		}
		taken, next := takenOver(h, f), model.Never // the next fault may make the silent server the right one again
		if i+1 < len(h.Faults) {
			next = h.Faults[i+1].Start
		}
		for _, op := range h.Operations {
			e := written[op.Key][op.Call.Value]
			if taken > 0 && op.Server == *f.Server && op.Start < f.End && e.Revision > taken && e.Received < next && logged(h, op, next) {
				p.add("server %d wrote %s of %s at revision %d after it was silent (%s), and the other server had written revision %d before",
					op.Server, op.Kind, op.Key, e.Revision, f.Name, taken)
			}
		}
	}
	return p.all()
}

// logged reports whether the log of the server that got a call has a call about this project while that call lasted, or after it
// had no answer.
func logged(h *model.History, op model.Operation, next int64) bool {
	end := op.End
	if op.Outcome == model.Unknown {
		end = next
	}
	return slices.ContainsFunc(h.Logged, func(l model.Logged) bool {
		return l.Server == op.Server && l.Key == op.Key && l.At+int64(time.Millisecond) > op.Start && l.At <= min(end, next)
	})
}

// takenOver returns the first revision that another server wrote during a fault, or 0.
func takenOver(h *model.History, f model.Fault) int64 {
	first := int64(0)
	for _, op := range h.Operations {
		if op.Server != *f.Server && op.Kind != model.Read && op.Outcome == model.Done && op.Start > f.Start && op.End < f.End &&
			op.Revision > 0 && (first == 0 || op.Revision < first) {
			first = op.Revision
		}
	}
	return first
}
