package validate

import (
	"maps"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// answers checks what clients were told against the timeline. Each answer names its revision.
func answers(h *model.History, line *timeline) []string {
	p := &problems{}
	for _, op := range h.Operations {
		if op.Odd {
			p.add("client %d: %s of %s got an answer that no client may get: %s", op.Client, op.Kind, op.Key, op.Error)
		}
		if op.Outcome != model.Done || op.Revision <= line.from || op.Revision > line.to {
			continue
		}
		e, known := line.changes[op.Revision][op.Key]
		switch {
		case op.Kind == model.Remove:
		case !known && op.Kind != model.Read:
			p.add("client %d: %s of %s was acknowledged with revision %d, and no watch has it", op.Client, op.Kind, op.Key, op.Revision)
		case !known:
			p.add("client %d: %s was read with resourceVersion %d, and no watch has it", op.Client, op.Key, op.Revision)
		case e.Value != op.Result.Value:
			p.add("client %d: %s of %s gave the value %d at revision %d, a watch says %d", op.Client, op.Kind, op.Key, op.Result.Value, op.Revision, e.Value)
		}
	}
	for _, l := range h.Listings {
		if want, covered := line.at(l.Revision); covered && !maps.Equal(l.Values, want) {
			p.add("client %d: a list at revision %d has %v, watches say %v", l.Client, l.Revision, l.Values, want)
		}
	}
	return p.all()
}

// calls are the operations for the model. What the watches tell settles the calls whose outcome no client knows: each value is
// written once, so a value that no watch has was never written, and another one was written before the first watch had it.
func calls(h *model.History, line *timeline) []model.Operation {
	appeared, lastDeletion := told(line)
	var out []model.Operation
	for _, op := range h.Operations {
		switch {
		case op.Outcome == model.Refused || op.Outcome == model.NotAsked:
			continue
		case op.Outcome == model.Unknown && (op.Kind == model.Read || op.Kind == model.Extend):
			continue
		case h.StaleReads && (op.Kind == model.Read || op.Outcome == model.Missing || op.Outcome == model.Exists):
			continue
		case op.Outcome != model.Unknown:
		case op.Kind == model.Remove:
			op.End = model.Never
			if at := lastDeletion[op.Key]; line.whole && at < op.Start {
				continue
			} else if line.whole {
				op.End = at
			}
		default:
			at, known := appeared[op.Key][op.Call.Value]
			switch {
			case known:
				op.End, op.Outcome = max(at, op.Start), model.Done
			case line.whole:
				continue
			default:
				op.End = model.Never
			}
		}
		out = append(out, op)
	}
	if h.StaleReads {
		return out
	}
	return append(out, listed(h)...)
}

// told returns when a watch first had each value, and the last deletion of each project.
func told(line *timeline) (appeared map[string]map[int]int64, lastDeletion map[string]int64) {
	appeared, lastDeletion = map[string]map[int]int64{}, map[string]int64{}
	for _, r := range line.revisions {
		for key, e := range line.changes[r] {
			if e.Value == model.Absent {
				lastDeletion[key] = max(lastDeletion[key], e.Received)
				continue
			}
			if appeared[key] == nil {
				appeared[key] = map[int]int64{}
			}
			if _, known := appeared[key][e.Value]; !known {
				appeared[key][e.Value] = e.Received
			}
		}
	}
	return appeared, lastDeletion
}

// listed turns each list into a read of every project that somebody called.
func listed(h *model.History) []model.Operation {
	keys := map[string]bool{}
	for _, op := range h.Operations {
		keys[op.Key] = true
	}
	var out []model.Operation
	for _, l := range h.Listings {
		for key := range keys {
			r := model.Result{Outcome: model.Missing}
			if value, there := l.Values[key]; there {
				r = model.Result{Outcome: model.Done, Value: value}
			}
			out = append(out, model.Operation{Client: l.Client, Start: l.Start, End: l.End, Call: model.Call{Kind: model.Read, Key: key}, Result: r})
		}
	}
	return out
}
