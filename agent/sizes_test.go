package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

func TestSizeOf(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	measure := func() int64 {
		t.Helper()
		s, err := sizeOf(t.Context(), dir)
		if err != nil || !s.known || s.device == 0 {
			t.Fatalf("size %+v: %v", s, err)
		}
		return s.bytes
	}
	empty := measure()
	write("a", 1<<20)
	write("deep/down/b", 1<<20)
	full := measure()
	if got := full - empty; got < 2<<20 || got > 2<<20+64<<10 {
		t.Errorf("two files of 1 MiB add %d bytes", got)
	}
	must(os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "deep", "same")))
	must(os.Symlink("/", filepath.Join(dir, "out")))
	must(os.Symlink(".", filepath.Join(dir, "deep", "loop")))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	must(f.Truncate(1 << 30))
	must(f.Close())
	if got := measure() - full; got > 64<<10 {
		t.Errorf("a hard link, links and a sparse file add %d bytes", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := sizeOf(ctx, dir); err == nil || s.known {
		t.Errorf("after the agent has stopped: %+v", s)
	}
	for name, path := range map[string]string{"missing": filepath.Join(dir, "nothing"), "not said": "", "a file": filepath.Join(dir, "a")} {
		if s, err := sizeOf(t.Context(), path); err == nil || s.known {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestNextSize(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	volume := func(uid string) engine.Volume {
		return engine.Volume{Name: uid, Labels: map[string]string{api.LabelVolumeUID: uid}}
	}
	for name, c := range map[string]struct {
		sizes map[string]time.Duration // how long ago
		want  string
		wait  time.Duration
	}{
		"none was measured":      {map[string]time.Duration{}, "a", 10 * time.Minute},
		"the new one first":      {map[string]time.Duration{"a": time.Hour}, "b", 10 * time.Minute},
		"the oldest first":       {map[string]time.Duration{"a": 20 * time.Minute, "b": 30 * time.Minute}, "b", 10 * time.Minute},
		"none is due":            {map[string]time.Duration{"a": 4 * time.Minute, "b": 3 * time.Minute}, "", 6 * time.Minute},
		"exactly due":            {map[string]time.Duration{"a": 10 * time.Minute, "b": 3 * time.Minute}, "a", 7 * time.Minute},
		"the size of a gone one": {map[string]time.Duration{"a": 0, "b": 0, "gone": time.Hour}, "", 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			i := &inventory{cfg: Config{MeasureEvery: 10 * time.Minute}, volumes: []engine.Volume{volume("a"), volume("b")}, sizes: map[string]size{}}
			for uid, ago := range c.sizes {
				i.sizes[uid] = size{at: now.Add(-ago)}
			}
			got, wait := i.nextSize(now)
			if got.Name != c.want || wait != c.wait {
				t.Errorf("next %q, or in %s; want %q, %s", got.Name, wait, c.want, c.wait)
			}
			if _, kept := i.sizes["gone"]; kept {
				t.Error("the size of a volume that is gone is kept")
			}
		})
	}
}
