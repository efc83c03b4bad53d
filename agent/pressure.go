package agent

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits define, in percent, when a node is short of disk or memory, and when images are collected.
type Limits struct {
	// DiskPressure is reported above this usage of the engine's disk (default 90), MemoryPressure below this much available
	// memory (default 5).
	DiskPressure, MemoryPressure float64
	// CollectAbove is the disk usage above which unused images that Cara pulled are removed (default 85), until the usage is at
	// most CollectTo (default 80).
	CollectAbove, CollectTo float64
}

func (l *Limits) validate() error {
	l.DiskPressure = cmp.Or(l.DiskPressure, 90)
	l.MemoryPressure = cmp.Or(l.MemoryPressure, 5)
	l.CollectAbove = cmp.Or(l.CollectAbove, 85)
	l.CollectTo = cmp.Or(l.CollectTo, min(80, l.CollectAbove))
	for name, v := range map[string]float64{
		"Limits.DiskPressure": l.DiskPressure, "Limits.MemoryPressure": l.MemoryPressure,
		"Limits.CollectAbove": l.CollectAbove, "Limits.CollectTo": l.CollectTo,
	} {
		if v < 0 || v > 100 {
			return fmt.Errorf("agent: %s is %v: write a percentage", name, v)
		}
	}
	if l.CollectTo > l.CollectAbove {
		return errors.New("agent: Limits.CollectTo is above Limits.CollectAbove: images would be removed for ever")
	}
	return nil
}

// Usage is the usage of a disk or of the memory, in bytes. Total is 0 if unknown.
type Usage struct{ Used, Total uint64 }

func (u Usage) percent() float64 {
	if u.Total == 0 {
		return 0
	}
	return float64(u.Used) / float64(u.Total) * 100
}

// slack is how many percent below its threshold a pressure must fall to end, so that a node at the threshold does not flap.
const slack = 1

// pressure returns whether a node is short of disk and memory, given the last conditions. The messages contain thresholds
// and no measurements, which change all the time, and each change is a write.
func pressure(l Limits, disk, memory Usage, before []*carav1.Condition) []*carav1.Condition {
	memoryUsed := 100 - l.MemoryPressure
	return []*carav1.Condition{
		pressed(api.CondDiskPressure, disk, l.DiskPressure, before, "of the disk of the engine's data is used"),
		pressed(api.CondMemoryPressure, memory, memoryUsed, before, "of the memory is used"),
	}
}

func pressed(typ string, u Usage, limit float64, before []*carav1.Condition, what string) *carav1.Condition {
	if u.Total == 0 {
		return api.NewCondition(typ, api.StatusUnknown, api.ReasonNotSeen, "the agent cannot see this from where it runs")
	}
	end := limit
	if api.FindCondition(before, typ).GetStatus() == api.StatusTrue {
		end = limit - slack
	}
	if u.percent() > end {
		return api.NewCondition(typ, api.StatusTrue, api.ReasonAboveLimit, fmt.Sprintf("more than %g %% %s; it ends at %g %%", limit, what, limit-slack))
	}
	return api.NewCondition(typ, api.StatusFalse, api.ReasonBelowLimit, fmt.Sprintf("no more than %g %% %s", limit, what))
}

// usage returns the usage of this machine: of the disk that holds root, and of the memory. If root does not exist here, the
// engine is on another machine and the usage is unknown.
func usage(root string) (disk, memory Usage) {
	disk, ok := diskUsage(root)
	if !ok {
		return Usage{}, Usage{}
	}
	return disk, memoryUsage("/proc/meminfo")
}

// diskUsage counts like `df`: blocks reserved for root are neither used nor available.
func diskUsage(root string) (Usage, bool) {
	var fs syscall.Statfs_t
	if root == "" || syscall.Statfs(root, &fs) != nil || fs.Blocks == 0 {
		return Usage{}, false
	}
	block, used := uint64(fs.Bsize), fs.Blocks-fs.Bfree
	return Usage{Used: used * block, Total: (used + fs.Bavail) * block}, true
}

func memoryUsage(path string) Usage {
	file, err := os.Open(path)
	if err != nil {
		return Usage{} // not a Linux machine
	}
	defer file.Close()
	found := map[string]uint64{}
	lines := bufio.NewScanner(file)
	for lines.Scan() && len(found) < 2 {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "MemTotal:" && fields[0] != "MemAvailable:" {
			continue
		}
		if kib, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			found[fields[0]] = kib << 10
		}
	}
	total, available := found["MemTotal:"], found["MemAvailable:"]
	if len(found) < 2 || available > total {
		return Usage{}
	}
	return Usage{Used: total - available, Total: total}
}
