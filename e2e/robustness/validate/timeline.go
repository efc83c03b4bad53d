package validate

import (
	"maps"
	"slices"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// timeline is what all watchers agree on: the changes of each revision. It has no gap from the revision from on.
type timeline struct {
	from, to  int64
	initial   map[string]model.Event           // the state at from
	changes   map[int64]map[string]model.Event // by revision and key
	revisions []int64                          // of changes, ascending
	whole     bool                             // one segment covers the run
}

// at returns the value of each project at a revision. It is false if the timeline does not cover the revision.
func (t *timeline) at(revision int64) (map[string]int, bool) {
	if revision < t.from || revision > t.to {
		return nil, false
	}
	values := map[string]int{}
	for key, e := range t.initial {
		set(values, key, e)
	}
	for _, r := range t.revisions {
		if r > revision {
			break
		}
		for key, e := range t.changes[r] {
			set(values, key, e)
		}
	}
	return values, true
}

func set(values map[string]int, key string, e model.Event) {
	if e.Value == model.Absent {
		delete(values, key)
	} else {
		values[key] = e.Value
	}
}

// timelineOf checks each watch alone and all of them together, and returns what they tell.
func timelineOf(watches []model.Watch) (*timeline, []string) {
	p := &problems{}
	line := &timeline{changes: map[int64]map[string]model.Event{}, initial: map[string]model.Event{}}
	for _, w := range watches {
		for _, s := range w.Segments {
			ordered(p, w.Watcher, s)
			line.take(p, w.Watcher, s)
		}
	}
	line.revisions = slices.Sorted(maps.Keys(line.changes))
	for _, w := range watches {
		for _, s := range w.Segments {
			line.lost(p, w.Watcher, s)
		}
	}
	line.cover(watches)
	return line, p.all()
}

// cover takes the longest segment as what the timeline covers.
func (t *timeline) cover(watches []model.Watch) {
	for _, w := range watches {
		for _, s := range w.Segments {
			if s.To-s.From <= t.to-t.from {
				continue
			}
			t.from, t.to, t.whole = s.From, s.To, len(w.Segments) == 1
			clear(t.initial)
			for _, e := range s.Initial {
				t.initial[e.Key] = e
			}
		}
	}
}

// ordered checks that one segment tells each change once and in order.
func ordered(p *problems, watcher int, s model.Segment) {
	last := s.From
	seen := map[string]bool{}
	for _, e := range s.Events {
		switch {
		case e.Revision < last || e.Revision == s.From:
			p.add("watch %d: revision %d of %s comes after revision %d", watcher, e.Revision, e.Key, last)
		case e.Revision > last:
			clear(seen)
		}
		if seen[e.Key] {
			p.add("watch %d: revision %d of %s comes twice", watcher, e.Revision, e.Key)
		}
		seen[e.Key] = true
		last = max(last, e.Revision)
		if !e.Deleted && e.Version != e.Revision {
			p.add("watch %d: %s comes with resourceVersion %d in revision %d", watcher, e.Key, e.Version, e.Revision)
		}
	}
}

// differ reports whether two changes of one key concern different objects. A deletion that a server has read from its store's log
// has only the name.
func differ(a, b model.Event) bool {
	if a.Deleted && (a.UID == "" || b.UID == "") {
		return false
	}
	return a.UID != b.UID
}

// take adds the changes of a segment, and checks that they are what others were told.
func (t *timeline) take(p *problems, watcher int, s model.Segment) {
	for _, e := range s.Events {
		if t.changes[e.Revision] == nil {
			t.changes[e.Revision] = map[string]model.Event{}
		}
		other, known := t.changes[e.Revision][e.Key]
		if known && (other.Value != e.Value || other.Deleted != e.Deleted || differ(other, e)) {
			p.add("watch %d: %s has the value %d at revision %d, another watch says %d", watcher, e.Key, e.Value, e.Revision, other.Value)
		}
		if !known || e.Received < other.Received {
			t.changes[e.Revision][e.Key] = e
		}
	}
}

// lost checks that a segment has each change that others were told in its range.
func (t *timeline) lost(p *problems, watcher int, s model.Segment) {
	has := map[int64]int{}
	for _, e := range s.Events {
		has[e.Revision]++
	}
	for _, r := range t.revisions {
		if r > s.From && r <= s.To && has[r] < len(t.changes[r]) {
			p.add("watch %d: it has %d of %d changes of revision %d, and covers %d to %d", watcher, has[r], len(t.changes[r]), r, s.From, s.To)
		}
	}
}
