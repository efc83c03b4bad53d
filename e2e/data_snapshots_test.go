package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// content is what is known of the files of one volume. Invariant: each acknowledged file was begun.
type content struct {
	acknowledged map[string]string // value by name
	begun        map[string]bool   // files that may be there, acknowledged or not
}

func newContent() content {
	return content{acknowledged: map[string]string{}, begun: map[string]bool{}}
}

func (c content) clone() content {
	return content{acknowledged: maps.Clone(c.acknowledged), begun: maps.Clone(c.begun)}
}

// wrong compares the files of a volume with what was acknowledged.
func (c content) wrong(found map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c.acknowledged)) {
		if got, ok := found[name]; !ok {
			out = append(out, fmt.Sprintf("file %s was acknowledged and is lost", name))
		} else if want := c.acknowledged[name]; got != want {
			out = append(out, fmt.Sprintf("file %s has %q, and %q was acknowledged", name, got, want))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !c.begun[name] {
			out = append(out, fmt.Sprintf("file %s was never written to this data", name))
		}
	}
	return out
}

// either returns what is known of a volume that has one of several contents: what all of them have, and what any of them may
// have.
func either(all ...content) content {
	out := newContent()
	if len(all) > 0 {
		out.acknowledged = maps.Clone(all[0].acknowledged)
	}
	for _, c := range all {
		maps.DeleteFunc(out.acknowledged, func(name, _ string) bool { return c.acknowledged[name] == "" })
		maps.Copy(out.begun, c.begun)
	}
	return out
}

// snapshots are the backups of a project. They outlive its data. Invariant: nothing was written while a backup ran, so each
// snapshot has what was acknowledged before, and nothing that was begun later.
type snapshots struct {
	saved  bool // a backup was requested
	byID   map[string]content
	order  []string  // the ids, the newest one last
	unsure []content // of backups after the newest one that may have made a snapshot
}

// succeeded records the snapshot of the backup that was begun last.
func (s *snapshots) succeeded(id string) {
	s.byID[id] = s.unsure[len(s.unsure)-1]
	s.order, s.unsure = append(s.order, id), nil
}

// asked returns the id of the snapshot that a restore names; empty if it takes the newest one.
func (s *snapshots) asked(c command) string {
	if c.way != wayOlder || len(s.order) == 0 {
		return ""
	}
	return s.order[c.pick%len(s.order)]
}

// of returns the content of the snapshot that was restored, or an error if no restore of asked may take it.
func (s *snapshots) of(asked, id string) (content, error) {
	c, known := s.byID[id]
	switch {
	case asked != "" && id != asked:
		return c, fmt.Errorf("snapshot %s was restored, and %s was asked for", id, asked)
	case known && asked == "" && id != s.order[len(s.order)-1]:
		return c, fmt.Errorf("snapshot %s was restored, and the newest one is %s", id, s.order[len(s.order)-1])
	case known:
		return c, nil
	case len(s.unsure) == 0:
		return c, fmt.Errorf("snapshot %s was restored, and no backup made it", id)
	}
	return either(s.unsure...), nil
}

// keptVolume is a volume that no project uses and that nobody has deleted.
type keptVolume struct {
	uid string
	content
}

// restored records that a restore gave the project the data of a snapshot. The data that it had is kept in the volume old.
// Containers of the same manifest may start with either.
func (l *ledger) restored(snapshot content, old string) {
	if len(l.acknowledged) > 0 { // otherwise there may be no volume yet
		l.kept = append(l.kept, keptVolume{old, l.content})
	}
	l.before[l.manifest] = slices.DeleteFunc(l.before[l.manifest], func(name string) bool { return snapshot.acknowledged[name] == "" })
	l.content = snapshot.clone()
}

// settled records which volume has the data after a settlement. If it is not the one that had it after the last settlement, the
// project has moved with its data or was restored, and the old volume is kept. Files may have been written there in between.
func (l *ledger) settled(uid string) {
	old := l.used
	moved := func(kept keptVolume) bool { return kept.uid == old.uid }
	if old.uid != "" && old.uid != uid && !slices.ContainsFunc(l.kept, moved) {
		for n := range l.files {
			old.begun[fileName(n+1)] = true
		}
		l.kept = append(l.kept, old)
	}
	l.used = keptVolume{}
	if len(l.acknowledged) > 0 {
		l.used = keptVolume{uid, l.clone()}
	}
}

// way is how a project is restored.
type way string

const (
	wayNewest    way = "newest"
	wayVolume    way = "one volume"
	wayOlder     way = "snapshot"
	wayOther     way = "for another project"
	wayCancelled way = "cancelled" // if it has not ended before
)

func ways() []way { return []way{wayNewest, wayVolume, wayOlder, wayOther, wayCancelled} }

func TestLedgerOfRestores(t *testing.T) {
	retain, write, save := command{verb: verbApply, mounts: true}, command{verb: verbWrite}, command{verb: verbSave}
	failed := command{verb: verbSave, pick: -1}
	drop, erase := command{verb: verbDrop}, command{verb: verbErase}
	newest, first := command{verb: verbBack}, command{verb: verbBack, way: wayOlder}
	both, one := map[string]string{"f1": "v1", "f2": "v2"}, map[string]string{"f1": "v1"}
	tests := map[string]struct {
		commands []command
		id       string // of the snapshot that the last command restores
		found    map[string]string
		kept     map[string]string
		want     string
	}{
		"as saved":           {[]command{retain, write, save, write, newest}, "s1", one, both, ""},
		"lost":               {[]command{retain, write, save, write, newest}, "s1", nil, both, "file f1 was acknowledged and is lost"},
		"newer than saved":   {[]command{retain, write, save, write, newest}, "s1", both, both, "file f2 was never written to this data"},
		"old data lost":      {[]command{retain, write, save, write, newest}, "s1", one, one, "kept: file f2 was acknowledged and is lost"},
		"written afterwards": {[]command{retain, write, save, newest, write}, "s1", both, one, ""},
		"lost afterwards":    {[]command{retain, write, save, newest, write}, "s1", one, one, "file f2 was acknowledged and is lost"},
		"older":              {[]command{retain, write, save, write, save, first}, "s1", one, both, ""},
		"not asked for":      {[]command{retain, write, save, write, save, first}, "s2", both, both, "snapshot s2 was restored, and s1 was asked for"},
		"not the newest":     {[]command{retain, write, save, write, save, newest}, "s1", one, both, "snapshot s1 was restored, and the newest one is s2"},
		"unknown":            {[]command{retain, write, save, newest}, "s9", one, one, "snapshot s9 was restored, and no backup made it"},
		"perhaps saved":      {[]command{retain, write, failed, write, failed, newest}, "s9", both, both, ""},
		"certainly saved":    {[]command{retain, write, failed, write, failed, newest}, "s9", nil, both, "file f1 was acknowledged and is lost"},
		"of erased data":     {[]command{retain, write, save, drop, erase, retain, write, newest}, "s1", one, map[string]string{"f2": "v2"}, ""},
	}
	for name, tt := range tests {
		l := newLedger()
		var problems []string
		for _, c := range tt.commands {
			l.begin(c)
			switch {
			case c.verb == verbWrite:
				l.acknowledge(fmt.Sprintf("v%d", l.files))
			case c.verb == verbSave && c.pick == 0:
				l.succeeded(fmt.Sprintf("s%d", len(l.order)+1))
			case c.verb == verbBack:
				snapshot, err := l.of(l.asked(c), tt.id)
				if err != nil {
					problems = append(problems, err.Error())
				}
				l.restored(snapshot, "old")
			}
		}
		if len(problems) == 0 {
			problems = l.wrong(tt.found)
			for _, problem := range l.kept[0].wrong(tt.kept) {
				problems = append(problems, "kept: "+problem)
			}
		}
		if got := strings.Join(problems, "; "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestLedgerOfStartsAfterARestore: a container of the manifest may start with the old data or with the restored data, and one
// of the next manifest only with the restored data.
func TestLedgerOfStartsAfterARestore(t *testing.T) {
	l := newLedger()
	for range 2 {
		l.begin(command{verb: verbApply, mounts: true})
		l.begin(command{verb: verbWrite})
		l.acknowledge("v")
		if l.manifest == 1 {
			l.begin(command{verb: verbSave})
			l.succeeded("s1")
			l.begin(command{verb: verbWrite})
			l.acknowledge("v")
		}
	}
	l.restored(l.byID["s1"], "old")
	l.begin(command{verb: verbWrite})
	l.acknowledge("v")
	l.begin(command{verb: verbApply, mounts: true})
	for manifest, want := range map[int][]string{2: {"f1"}, 3: {"f1", "f4"}} {
		if got := l.before[manifest]; !slices.Equal(got, want) {
			t.Errorf("a container of manifest %d must find %q, want %q", manifest, got, want)
		}
	}
}

// TestLedgerOfMoves: the volume that a project had at a settlement is kept when it has another one at the next settlement,
// unless a command deleted the data meanwhile.
func TestLedgerOfMoves(t *testing.T) {
	retain, write, drop := command{verb: verbApply, mounts: true}, command{verb: verbWrite}, command{verb: verbDrop}
	reclaim := command{verb: verbApply, mounts: true, reclaim: true}
	tests := map[string]struct {
		before, after []command
		uid           string
		want          string // the kept volumes
	}{
		"stays":       {[]command{retain, write}, []command{write}, "a", ""},
		"moved":       {[]command{retain, write}, []command{write}, "b", "a: file f1 was acknowledged and is lost"},
		"has no data": {[]command{retain}, []command{write}, "b", ""},
		"deleted":     {[]command{reclaim, write}, []command{drop, retain}, "b", ""},
		"kept by a restore": {
			[]command{retain, write},
			[]command{{verb: verbSave}, {verb: verbBack}},
			"b", "a: file f1 was acknowledged and is lost",
		},
	}
	for name, tt := range tests {
		l := newLedger()
		play := func(commands []command, uid string) {
			for _, c := range commands {
				l.begin(c)
				switch c.verb {
				case verbWrite:
					l.acknowledge("v")
				case verbSave:
					l.succeeded("s1")
				case verbBack:
					l.restored(l.byID["s1"], "a")
				default:
				}
			}
			l.settled(uid)
		}
		play(tt.before, "a")
		play(tt.after, tt.uid)
		var got []string
		for _, kept := range l.kept {
			got = append(got, kept.uid+": "+strings.Join(kept.wrong(nil), "; "))
			if problems := kept.wrong(map[string]string{"f1": "v", "f2": "v"}); tt.uid == "b" && l.files == 2 && len(problems) > 0 {
				t.Errorf("%s: %q about a file that was written before the move", name, problems)
			}
		}
		if got := strings.Join(got, ", "); got != tt.want {
			t.Errorf("%s: the kept volumes are %q, want %q", name, got, tt.want)
		}
	}
}
