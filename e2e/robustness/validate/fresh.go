package validate

import (
	"slices"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// fresh checks that no server goes back: what a server has answered once, its later answers have, too. Each server answers from its own
// cache, so a read at another server may be older. A client that writes at one server and reads there sees its write.
func fresh(h *model.History, line *timeline) []string {
	p := &problems{}
	seen, history := marks(h), byKey(line)
	for _, op := range h.Operations {
		if op.Kind != model.Read || op.Outcome != model.Done && op.Outcome != model.Missing {
			continue
		}
		need := seen[op.Server].before(op.Start)
		if need < line.from || need > line.to {
			continue
		}
		changes := history[op.Key]
		next := slices.IndexFunc(changes, func(e model.Event) bool { return e.Revision > op.Revision })
		switch {
		case op.Outcome == model.Done && next >= 0 && changes[next].Revision <= need:
			p.add("server %d: %s was read with resourceVersion %d after the server had answered with revision %d, and it had changed at %d",
				op.Server, op.Key, op.Revision, need, changes[next].Revision)
		case op.Outcome == model.Missing && there(line, changes, op.Key, need):
			p.add("server %d: %s was not found after the server had answered with revision %d, which has it", op.Server, op.Key, need)
		}
	}
	for _, l := range h.Listings {
		if need := seen[l.Server].before(l.Start); l.Revision < need {
			p.add("server %d: a list has revision %d after the server had answered with revision %d", l.Server, l.Revision, need)
		}
	}
	return p.all()
}

// there reports whether a project exists at a revision and is not removed later.
func there(line *timeline, changes []model.Event, key string, revision int64) bool {
	e, known := line.initial[key]
	exists := known && !e.Deleted
	for _, e := range changes {
		if e.Revision <= revision {
			exists = !e.Deleted
		} else if e.Deleted {
			return false
		}
	}
	return exists
}

func byKey(line *timeline) map[string][]model.Event {
	all := map[string][]model.Event{}
	for _, r := range line.revisions {
		for key, e := range line.changes[r] {
			all[key] = append(all[key], e)
		}
	}
	return all
}

// mark is a revision that a server had reached at a time.
type mark struct{ at, revision int64 }

// reached are the marks of one server in the order of time, with ascending revisions.
type reached []mark

// before returns the newest revision that the server had certainly reached before a time, or -1.
func (r reached) before(at int64) int64 {
	i, _ := slices.BinarySearchFunc(r, at, func(m mark, at int64) int {
		if m.at < at {
			return -1
		}
		return 1
	})
	if i == 0 {
		return -1
	}
	return r[i-1].revision
}

// marks returns what each server had reached, by its answers.
func marks(h *model.History) map[int]reached {
	all := map[int]reached{}
	for _, op := range h.Operations {
		if op.Outcome == model.Done && op.Revision > 0 {
			all[op.Server] = append(all[op.Server], mark{op.End, op.Revision})
		}
	}
	for _, l := range h.Listings {
		all[l.Server] = append(all[l.Server], mark{l.End, l.Revision})
	}
	for _, r := range all {
		slices.SortFunc(r, func(a, b mark) int { return int(a.at - b.at) })
		for i := 1; i < len(r); i++ {
			r[i].revision = max(r[i].revision, r[i-1].revision)
		}
	}
	return all
}
