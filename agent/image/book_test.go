package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
)

func TestCollectable(t *testing.T) {
	old := pulledImage{ID: "old", Refs: []string{"shop/old"}, Used: time.Unix(1, 0)}
	mid := pulledImage{ID: "mid", Refs: []string{"mid:1"}, Used: time.Unix(2, 0)}
	young := pulledImage{ID: "young", Refs: []string{"young:1"}, Used: time.Unix(3, 0)}
	pulled := []pulledImage{old, mid, young}
	stored := func(edit ...func([]engine.StoredImage)) []engine.StoredImage {
		out := []engine.StoredImage{
			{ID: "old", Tags: []string{"shop/old:latest"}, Size: 10},
			{ID: "mid", Tags: []string{"mid:1"}, Size: 10},
			{ID: "young", Tags: []string{"young:1"}, Size: 10},
			{ID: "somebody's", Tags: []string{"theirs:1"}, Size: 100},
		}
		for _, e := range edit {
			e(out)
		}
		return out
	}
	for name, c := range map[string]struct {
		used            uint64
		stored          []engine.StoredImage
		inUse, assigned map[string]bool
		want            string // names, in order
	}{
		"room enough":                  {used: 80, stored: stored()},
		"one is enough":                {used: 90, stored: stored(), want: "shop/old:latest"},
		"two":                          {used: 91, stored: stored(), want: "shop/old:latest mid:1"},
		"never what is not ours":       {used: 100, stored: stored(), want: "shop/old:latest mid:1"},
		"a disk full of others":        {used: 1000, stored: stored(), want: "shop/old:latest mid:1 young:1"},
		"one that a container uses":    {used: 90, stored: stored(), inUse: map[string]bool{"old": true}, want: "mid:1"},
		"one that is assigned":         {used: 90, stored: stored(), assigned: map[string]bool{"docker.io/shop/old:latest": true}, want: "mid:1"},
		"one that somebody else named": {used: 90, stored: stored(func(s []engine.StoredImage) { s[0].Tags = append(s[0].Tags, "mine:1") }), want: "mid:1"},
		"one assigned by another name of ours": {
			used: 90, stored: stored(func(s []engine.StoredImage) { s[0].Tags = nil }),
			assigned: map[string]bool{"docker.io/shop/old:latest": true}, want: "mid:1",
		},
		"one whose name went on to another": {used: 90, stored: stored(func(s []engine.StoredImage) { s[0].Tags = nil }), want: "old"},
		"one that is gone":                  {used: 90, stored: stored()[1:], want: "mid:1"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, r := range collectable(excess(c.used, 100, 80), pulled, c.stored, c.inUse, c.assigned) {
				got = append(got, r.names...)
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("removes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestImageBook(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1_800_000_000, 0).UTC()
	b := NewBook(dir)
	for _, err := range []error{
		b.Load(),
		b.add("a", "a:1", false, now), b.add("a", "a:2", true, now), b.add("b", "b:1", false, now.Add(time.Second)),
		b.add("theirs", "theirs:1", true, now), b.add("gone", "gone:1", false, now),
		b.use(map[string]bool{"a": true}, map[string]bool{"a": true, "b": true}, now.Add(time.Hour)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	again := NewBook(dir)
	if err := again.Load(); err != nil {
		t.Fatal(err)
	}
	want := []pulledImage{
		{ID: "b", Refs: []string{"b:1"}, Used: now.Add(time.Second)},
		{ID: "a", Refs: []string{"a:1", "a:2"}, Used: now.Add(time.Hour)},
	}
	if diff := cmp.Diff(want, again.list()); diff != "" {
		t.Errorf("the book (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(again.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := NewBook(dir)
	if err := broken.Load(); err != nil || len(broken.list()) != 0 {
		t.Errorf("a broken book: %v, %v", err, broken.list())
	}
	if _, err := os.Stat(filepath.Join(dir, "images.json.broken")); err != nil {
		t.Error(err)
	}
}
