package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// verb is what a command does to a project or to its volume.
type verb string

const (
	verbApply verb = "apply"          // create or update the project
	verbWrite verb = "write"          // write a file into the volume
	verbDrop  verb = "delete project" // the data is deleted if the newest manifest says so
	verbErase verb = "delete volume"  // only a volume that no project uses
	verbMove  verb = "move"           // to the other node, with its data
	verbSave  verb = "back up"
	verbBack  verb = "restore"   // from a backup
	verbTake  verb = "take away" // somebody removes a retained volume from the engine; a new project must not start without it
)

// command is one step of a project.
type command struct {
	verb    verb
	mounts  bool // the manifest has the volume
	reclaim bool // the manifest deletes the data with the project
	image   int
	way     way // of a restore
	pick    int // chooses among older snapshots
}

func (c command) String() string {
	switch c.verb {
	case verbApply:
	case verbBack:
		return fmt.Sprintf("restore (%s)", c.way)
	default:
		return string(c.verb)
	}
	return fmt.Sprintf("apply (mounts %t, reclaim %t, image %d)", c.mounts, c.reclaim, c.image)
}

// ledger is what the commands so far promise about one project and its volume. Invariant: a file in acknowledged was
// written, and no command since then deletes the data.
type ledger struct {
	exists, mounts, reclaim bool
	manifest                int // number of the newest manifest
	files                   int // number of files that were begun
	content
	before map[int][]string // by manifest: the files that were acknowledged before it was applied
	snapshots
	kept []keptVolume // from before moves and restores, or restored for other projects
	used keptVolume   // had the data after the last settlement
}

func newLedger() *ledger {
	return &ledger{content: newContent(), before: map[int][]string{}, snapshots: snapshots{byID: map[string]content{}}}
}

// next chooses a command that is possible now. It depends on the commands before, and not on their results.
func (l *ledger) next(r *rand.Rand) command {
	apply := command{verb: verbApply, mounts: r.IntN(4) > 0, reclaim: r.IntN(4) == 0, image: r.IntN(2)}
	switch n := r.IntN(100); {
	case !l.exists && n < 15:
		return command{verb: verbErase}
	case !l.exists && n < 35:
		return command{verb: verbTake}
	case !l.exists, !l.mounts && n < 60:
		return apply
	case !l.mounts && n < 75:
		return command{verb: verbErase}
	case !l.mounts:
		return command{verb: verbDrop}
	case n < 44:
		return command{verb: verbWrite}
	case n < 58:
		return apply
	case n < 72:
		return command{verb: verbMove}
	case n < 81, n < 90 && !l.saved:
		return command{verb: verbSave}
	case n < 90:
		return command{verb: verbBack, way: ways()[r.IntN(len(ways()))], pick: r.IntN(100)}
	}
	return command{verb: verbDrop}
}

// begin records a command that is going to be carried out. From now on it may have an effect.
func (l *ledger) begin(c command) {
	switch c.verb {
	case verbApply:
		l.manifest++
		l.exists, l.mounts, l.reclaim = true, c.mounts, c.reclaim
		if l.mounts {
			l.before[l.manifest] = slices.Sorted(maps.Keys(l.acknowledged))
		}
	case verbWrite:
		l.files++
		l.begun[l.file()] = true
	case verbDrop:
		if l.mounts && l.reclaim {
			l.forget()
		}
		l.exists, l.mounts = false, false
	case verbErase:
		l.forget()
	case verbSave:
		l.saved = true
		l.unsure = append(l.unsure, l.clone())
	case verbMove: // wherever the data is, it is the same
	case verbBack: // only its end has an effect, see restored
	case verbTake: // its parts are commands, too
	}
}

// file is the name of the file that was begun last.
func (l *ledger) file() string { return fileName(l.files) }

func fileName(n int) string { return fmt.Sprintf("f%d", n) }

// acknowledge records that the newest file has a value.
func (l *ledger) acknowledge(value string) { l.acknowledged[l.file()] = value }

// forget drops the data, because a command deletes it. Backups and kept volumes stay.
func (l *ledger) forget() { l.content, l.used = newContent(), keptVolume{} }

// wrongStart compares the files that a container of a manifest found at its start with those that were acknowledged before.
func (l *ledger) wrongStart(manifest int, found []string) []string {
	var out []string
	for _, name := range l.before[manifest] {
		if !slices.Contains(found, name) {
			out = append(out, fmt.Sprintf("a container of manifest %d started without file %s", manifest, name))
		}
	}
	return out
}

// misplaced compares the Volume objects with the Managed volumes of the engines, which are uids by node.
func misplaced(objects []*carav1.Volume, engines map[string][]string) []string {
	var out []string
	at, known := map[string]string{}, map[string]bool{}
	for _, node := range slices.Sorted(maps.Keys(engines)) {
		for _, uid := range engines[node] {
			if at[uid] != "" {
				out = append(out, fmt.Sprintf("data %s is on node %s and on node %s", uid, at[uid], node))
			}
			at[uid] = node
		}
	}
	for _, v := range objects {
		uid, name, st := v.GetMetadata().GetUid(), v.GetMetadata().GetName(), v.GetStatus()
		known[uid] = true
		switch {
		case slices.Contains([]string{api.VolumeDeleting, api.VolumeLost, api.VolumeCopying}, st.GetState()):
			out = append(out, fmt.Sprintf("volume %s (%s) is %s: %s", name, uid, st.GetState(), st.GetMessage()))
		case st.GetMade() != (at[uid] != "") || st.GetMade() && at[uid] != st.GetNode():
			out = append(out, fmt.Sprintf("volume %s (%s) is on node %q (made %t), and its data is on %q", name, uid, st.GetNode(), st.GetMade(), at[uid]))
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(at)) {
		if !known[uid] {
			out = append(out, fmt.Sprintf("data %s on node %s has no Volume object", uid, at[uid]))
		}
	}
	return out
}

func TestLedger(t *testing.T) {
	create, retain := command{verb: verbApply, mounts: true, reclaim: true}, command{verb: verbApply, mounts: true}
	unmount, write := command{verb: verbApply, reclaim: true}, command{verb: verbWrite}
	drop, erase := command{verb: verbDrop}, command{verb: verbErase}
	tests := map[string]struct {
		commands []command
		found    map[string]string
		want     string
	}{
		"nothing":               {nil, nil, ""},
		"kept":                  {[]command{retain, write, write}, map[string]string{"f1": "v1", "f2": "v2"}, ""},
		"lost":                  {[]command{retain, write, write}, map[string]string{"f2": "v2"}, "file f1 was acknowledged and is lost"},
		"changed":               {[]command{retain, write}, map[string]string{"f1": ""}, `file f1 has "", and "v1" was acknowledged`},
		"retained":              {[]command{retain, write, drop}, nil, "file f1 was acknowledged and is lost"},
		"retained at an update": {[]command{create, write, retain, drop, retain}, nil, "file f1 was acknowledged and is lost"},
		"unmounted":             {[]command{create, write, unmount, drop}, nil, "file f1 was acknowledged and is lost"},
		"reclaimed":             {[]command{retain, write, create, drop}, nil, ""},
		"erased":                {[]command{retain, write, drop, erase}, nil, ""},
		"back from the dead":    {[]command{create, write, drop, create}, map[string]string{"f1": "v1"}, "file f1 was never written to this data"},
		"new after the old":     {[]command{create, write, drop, create, write}, map[string]string{"f2": "v2"}, ""},
	}
	for name, tt := range tests {
		l := newLedger()
		for _, c := range tt.commands {
			if l.begin(c); c.verb == verbWrite {
				l.acknowledge(strings.Replace(l.file(), "f", "v", 1))
			}
		}
		if got := strings.Join(l.wrong(tt.found), "; "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestLedgerOfStarts(t *testing.T) {
	l := newLedger()
	apply := command{verb: verbApply, mounts: true}
	l.begin(apply)
	l.begin(command{verb: verbWrite}) // never acknowledged
	l.begin(command{verb: verbWrite})
	l.acknowledge("v")
	l.begin(apply)
	l.begin(command{verb: verbErase})
	l.begin(apply)
	for manifest, want := range map[int]string{1: "", 2: "a container of manifest 2 started without file f2", 3: ""} {
		if got := strings.Join(l.wrongStart(manifest, nil), "; "); got != want {
			t.Errorf("manifest %d: %q, want %q", manifest, got, want)
		}
	}
	if got := l.wrongStart(2, []string{"f2"}); len(got) > 0 {
		t.Errorf("with its file: %q", got)
	}
}

// TestLedgerChoosesPossibleCommands, the same ones for the same seed, and all of them.
func TestLedgerChoosesPossibleCommands(t *testing.T) {
	run := func(seed uint64) string {
		l, r, said := newLedger(), rand.New(rand.NewPCG(seed, 0)), ""
		for range 200 {
			c := l.next(r)
			if slices.Contains([]verb{verbWrite, verbMove, verbSave, verbBack}, c.verb) && !l.mounts || c.verb == verbBack && !l.saved || c.verb == verbDrop && !l.exists ||
				c.verb == verbErase && l.mounts || c.verb == verbTake && l.exists {
				t.Errorf("seed %d: %s, while exists is %t and mounts is %t", seed, c, l.exists, l.mounts)
			}
			l.begin(c)
			said += c.String() + "\n"
		}
		return said
	}
	for seed := range uint64(20) {
		said := run(seed)
		for _, v := range []verb{verbApply, verbWrite, verbDrop, verbErase, verbMove, verbTake, verbSave, verbBack} {
			if !strings.Contains(said, string(v)) {
				t.Errorf("seed %d never chooses %q", seed, v)
			}
		}
		if said != run(seed) || said == run(seed+1) {
			t.Errorf("seed %d does not decide the commands", seed)
		}
	}
}

func TestMisplaced(t *testing.T) {
	object := func(uid, node string, made bool, state string) *carav1.Volume {
		return &carav1.Volume{
			Metadata: &carav1.ObjectMeta{Name: "p.data", Uid: uid},
			Status:   &carav1.VolumeStatus{Node: node, Made: made, State: cmp.Or(state, api.VolumeInUse)},
		}
	}
	tests := map[string]struct {
		objects []*carav1.Volume
		engines map[string][]string
		want    string
	}{
		"none":          {nil, nil, ""},
		"in its place":  {[]*carav1.Volume{object("a", "n1", true, "")}, map[string][]string{"n1": {"a"}, "n2": nil}, ""},
		"not made yet":  {[]*carav1.Volume{object("a", "", false, "")}, nil, ""},
		"gone":          {[]*carav1.Volume{object("a", "n1", true, "")}, nil, `volume p.data (a) is on node "n1" (made true), and its data is on ""`},
		"not told":      {[]*carav1.Volume{object("a", "n1", false, "")}, map[string][]string{"n1": {"a"}}, `volume p.data (a) is on node "n1" (made false), and its data is on "n1"`},
		"elsewhere":     {[]*carav1.Volume{object("a", "n1", true, "")}, map[string][]string{"n2": {"a"}}, `volume p.data (a) is on node "n1" (made true), and its data is on "n2"`},
		"in two places": {[]*carav1.Volume{object("a", "n2", true, "")}, map[string][]string{"n1": {"a"}, "n2": {"a"}}, "data a is on node n1 and on node n2"},
		"lost":          {[]*carav1.Volume{object("a", "n1", true, api.VolumeLost)}, nil, "volume p.data (a) is Lost: "},
		"left behind":   {[]*carav1.Volume{object("a", "n1", false, api.VolumeCopying)}, nil, "volume p.data (a) is Copying: "},
		"unknown":       {nil, map[string][]string{"n1": {"a"}}, "data a on node n1 has no Volume object"},
	}
	for name, tt := range tests {
		if got := strings.Join(misplaced(tt.objects, tt.engines), "; "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
