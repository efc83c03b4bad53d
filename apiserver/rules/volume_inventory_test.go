package rules

import (
	"testing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestFateOf(t *testing.T) {
	for _, test := range []struct {
		name    string
		state   string
		made    bool
		project string
		held    bool
		want    Fate
	}{
		{"the node makes it", api.VolumeInUse, false, "uid", false, FateStays},
		{"the node has made it", api.VolumeInUse, false, "uid", true, made},
		{"in use", api.VolumeInUse, true, "uid", true, FateStays},
		{"removed by hand while in use", api.VolumeInUse, true, "uid", false, lost},
		{"retained", api.VolumeRetained, true, "", true, FateStays},
		{"removed by hand while retained", api.VolumeRetained, true, "", false, lost},
		{"retained, and made after all", api.VolumeRetained, false, "", true, made},
		{"retained, and never made", api.VolumeRetained, false, "", false, FateRemoved},
		{"lost", api.VolumeLost, true, "uid", false, FateStays},
		{"lost and found", api.VolumeLost, true, "uid", true, found},
		{"its node does not have the copy yet", api.VolumeCopying, false, "", false, FateStays},
		{"its node has the copy", api.VolumeCopying, false, "", true, made},
		{"the copy is being filled", api.VolumeCopying, true, "", true, FateStays},
		{"the copy was removed by hand", api.VolumeCopying, true, "", false, copyLost},
		{"being deleted", api.VolumeDeleting, true, "", true, FateStays},
		{"deleted", api.VolumeDeleting, true, "", false, FateRemoved},
	} {
		v := &carav1.Volume{Status: &carav1.VolumeStatus{State: test.state, Made: test.made, ProjectUid: test.project}}
		var held *carav1.HeldVolume
		if test.held {
			held = &carav1.HeldVolume{Used: true} // as most are, which says nothing of a volume that is no copy
		}
		if got := FateOf(v, held); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// TestFateOfCopies: a copy that a project has used is nobody's to delete.
func TestFateOfCopies(t *testing.T) {
	for _, test := range []struct {
		name, state string
		made, used  bool
		want        Fate
	}{
		{"being filled", api.VolumeCopying, true, false, FateStays},
		{"used, and the server was restored", api.VolumeCopying, true, true, copyUsed},
		{"used before the server knows that it was made", api.VolumeCopying, false, true, copyUsed},
		{"being deleted", api.VolumeDeleting, true, false, FateStays},
		{"being deleted, and used", api.VolumeDeleting, true, true, copyUsed},
		{"in use in spite of its name", api.VolumeInUse, true, true, FateStays},
	} {
		v := &carav1.Volume{Status: &carav1.VolumeStatus{State: test.state, Made: test.made, Copy: true}}
		if got := FateOf(v, &carav1.HeldVolume{Used: test.used}); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
		if got := FateOf(v, nil); got == copyUsed {
			t.Errorf("%s, and gone: %d", test.name, got)
		}
	}
}

// TestSameVolume: a volume is known by its uid, whatever its name has become between two looks.
func TestSameVolume(t *testing.T) {
	volume := func(name, uid string) *carav1.Volume {
		return &carav1.Volume{
			Metadata: &carav1.ObjectMeta{Name: name, Uid: uid}, Spec: &carav1.VolumeSpec{Project: "shop", Name: "db"}, Status: &carav1.VolumeStatus{},
		}
	}
	const old, other = "12345678-old", "87654321-new"
	aside := api.AsideName("shop", "db", old)
	for name, tt := range map[string]struct {
		seen string // name of then
		now  []*carav1.Volume
		want string
	}{
		"as before":                      {"shop.db", []*carav1.Volume{volume("shop.db", old)}, "shop.db"},
		"set aside for a new one":        {"shop.db", []*carav1.Volume{volume("shop.db", other), volume(aside, old)}, aside},
		"given back":                     {aside, []*carav1.Volume{volume("shop.db", old)}, "shop.db"},
		"gone":                           {"shop.db", nil, ""},
		"gone, and there is another one": {"shop.db", []*carav1.Volume{volume("shop.db", other)}, ""},
	} {
		x := state.Begin(state.NewCache(1).View())
		for _, v := range tt.now {
			x.Put(v)
		}
		if got := SameVolume(x, volume(tt.seen, old)); got.GetMetadata().GetName() != tt.want {
			t.Errorf("%s: %v, want %q", name, got, tt.want)
		}
	}
}

func TestFoundVolumes(t *testing.T) {
	held := []*carav1.HeldVolume{
		{Uid: "4", Project: "shop", Name: "db"},
		{Uid: "3", Project: "blog", Name: "db"},
		{Uid: "2", Project: "shop", Name: "media"},
		{Uid: "1", Project: "shop", Name: "a/b"},
		{Uid: "0", Project: "blog", Name: "media"},
	}
	known := map[string]bool{"0": true}
	for _, test := range []struct {
		name  string
		limit int
		want  string
		left  int
	}{
		{"all that are new and have the labels of an agent", 10, "342", 0},
		{"the first ones", 2, "34", 1},
		{"no room", 0, "", 3},
		{"more than there may be already", -5, "", 3},
	} {
		found, left := FoundVolumes(held, known, test.limit)
		got := ""
		for _, h := range found {
			got += h.GetUid()
		}
		if got != test.want || left != test.left {
			t.Errorf("%s: %q and %d left, want %q and %d", test.name, got, left, test.want, test.left)
		}
	}
}
