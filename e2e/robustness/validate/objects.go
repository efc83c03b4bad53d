package validate

import (
	"maps"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/e2e/robustness/model"
)

// objects follows each project through the timeline: its values are those that clients asked for, an old value does not come
// back, and within one UID the generation and the epoch never go back.
func objects(h *model.History, line *timeline) []string {
	p := &problems{}
	asked := map[string]map[int]bool{}
	for _, op := range h.Operations {
		if op.Call.Value != model.Absent {
			if asked[op.Key] == nil {
				asked[op.Key] = map[int]bool{}
			}
			asked[op.Key][op.Call.Value] = true
		}
	}
	last, past := map[string]model.Event{}, map[string]map[int]bool{}
	maps.Copy(last, line.initial)
	for _, r := range line.revisions {
		for key, e := range line.changes[r] {
			before, known := last[key]
			last[key] = e
			if past[key] == nil {
				past[key] = map[int]bool{}
			}
			if known && before.Value != e.Value {
				past[key][before.Value] = true
			}
			one(p, key, e, asked[key], past[key])
			if known {
				successor(p, before, e)
			}
		}
	}
	return p.all()
}

func one(p *problems, key string, e model.Event, asked, past map[int]bool) {
	if e.Phase == api.PhaseFailed {
		p.add("%s is Failed at revision %d, and no fault of a run is a reason for that: %s", key, e.Revision, e.Why)
	}
	if e.Value == model.Absent {
		return
	}
	if len(asked) > 0 && !asked[e.Value] {
		p.add("%s has the value %d at revision %d, and no client asked for it", key, e.Value, e.Revision)
	}
	if len(asked) > 0 && past[e.Value] {
		p.add("%s has the value %d again at revision %d, after another one", key, e.Value, e.Revision)
	}
}

func successor(p *problems, before, e model.Event) {
	if e.Deleted || before.Deleted || before.UID != e.UID {
		return
	}
	if e.Generation < before.Generation {
		p.add("%s goes back from generation %d to %d at revision %d", e.Key, before.Generation, e.Generation, e.Revision)
	}
	if e.Epoch < before.Epoch {
		p.add("%s goes back from epoch %d to %d at revision %d", e.Key, before.Epoch, e.Epoch, e.Revision)
	}
	if e.Value != before.Value && e.Value != model.Absent && e.Generation == before.Generation {
		p.add("%s changes from %d to %d at revision %d without a new generation", e.Key, before.Value, e.Value, e.Revision)
	}
	if e.Node != before.Node && e.Node != "" && e.Epoch == before.Epoch {
		p.add("%s goes to node %s at revision %d without a new epoch", e.Key, e.Node, e.Revision)
	}
}

// hosts checks that at no revision two projects have one host.
func hosts(line *timeline) []string {
	p := &problems{}
	of, owner := map[string][]string{}, map[string]string{} // hosts by project, project by host
	set := func(e model.Event) {
		for _, host := range of[e.Key] {
			if owner[host] == e.Key {
				delete(owner, host)
			}
		}
		of[e.Key] = nil
		if e.Deleted {
			return
		}
		of[e.Key] = e.Hosts
	}
	claim := func(e model.Event) {
		for _, host := range of[e.Key] {
			if other, taken := owner[host]; taken && other != e.Key {
				p.add("%s and %s both have the host %s at revision %d", other, e.Key, host, e.Revision)
			}
			owner[host] = e.Key
		}
	}
	for _, e := range line.initial {
		set(e)
		claim(e)
	}
	for _, r := range line.revisions {
		for _, e := range line.changes[r] { // all before the first claim: a transaction can hand a host over
			set(e)
		}
		for _, e := range line.changes[r] {
			claim(e)
		}
	}
	return p.all()
}
