package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestPressure(t *testing.T) {
	for name, c := range map[string]struct {
		disk, memory         Usage
		before               string
		wantDisk, wantMemory string
	}{
		"plenty":            {Usage{50, 100}, Usage{50, 100}, "", api.StatusFalse, api.StatusFalse},
		"at the limit":      {Usage{90, 100}, Usage{95, 100}, "", api.StatusFalse, api.StatusFalse},
		"above":             {Usage{91, 100}, Usage{96, 100}, "", api.StatusTrue, api.StatusTrue},
		"a little below":    {Usage{895, 1000}, Usage{945, 1000}, api.StatusTrue, api.StatusTrue, api.StatusTrue},
		"well below":        {Usage{88, 100}, Usage{93, 100}, api.StatusTrue, api.StatusFalse, api.StatusFalse},
		"full":              {Usage{100, 100}, Usage{100, 100}, "", api.StatusTrue, api.StatusTrue},
		"cannot be seen":    {Usage{}, Usage{}, api.StatusTrue, api.StatusUnknown, api.StatusUnknown},
		"memory cannot be":  {Usage{10, 100}, Usage{}, "", api.StatusFalse, api.StatusUnknown},
		"the edge, not yet": {Usage{895, 1000}, Usage{945, 1000}, api.StatusFalse, api.StatusFalse, api.StatusFalse},
	} {
		t.Run(name, func(t *testing.T) {
			var l Limits
			if err := l.validate(); err != nil {
				t.Fatal(err)
			}
			var before []*carav1.Condition
			if c.before != "" {
				before = append(before, api.NewCondition(api.CondDiskPressure, c.before, "", ""), api.NewCondition(api.CondMemoryPressure, c.before, "", ""))
			}
			got := pressure(l, c.disk, c.memory, before)
			if got[0].GetStatus() != c.wantDisk || got[1].GetStatus() != c.wantMemory {
				t.Errorf("got %v, want disk %s, memory %s", got, c.wantDisk, c.wantMemory)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	disk, memory := usage(t.TempDir())
	if disk.Total == 0 || disk.Used > disk.Total || memory.Total == 0 || memory.Used > memory.Total {
		t.Errorf("disk %+v, memory %+v", disk, memory)
	}
	if disk, memory := usage(filepath.Join(t.TempDir(), "elsewhere")); disk.Total+memory.Total != 0 {
		t.Errorf("of another machine: disk %+v, memory %+v", disk, memory)
	}
	for name, text := range map[string]string{
		"empty": "", "garbage": "MemTotal: x kB\nMemAvailable:\n", "upside down": "MemTotal: 1 kB\nMemAvailable: 2 kB\n",
	} {
		path := filepath.Join(t.TempDir(), "meminfo")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := memoryUsage(path); got.Total != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		ok     bool
	}{
		"defaults":      {Limits{}, true},
		"low":           {Limits{CollectAbove: 1}, true},
		"upside down":   {Limits{CollectAbove: 50, CollectTo: 60}, false},
		"no percentage": {Limits{DiskPressure: 200}, false},
		"negative":      {Limits{MemoryPressure: -1}, false},
	} {
		if err := c.limits.validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
