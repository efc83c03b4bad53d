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

// Limits say, in percent, when a node is short of something and what is done about it.
type Limits struct {
	// DiskPressure is said above this much of the engine's disk used (90 where 0), MemoryPressure below this much of
	// the memory available (5 where 0).
	DiskPressure, MemoryPressure float64
	// CollectAbove this much of the disk used (85 where 0), images that Cara pulled and nobody uses are removed until
	// no more than CollectTo (80 where 0) is.
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

// Usage is how much of a disk or of the memory is taken, in bytes. Total is 0 where this machine cannot tell.
type Usage struct{ Used, Total uint64 }

func (u Usage) percent() float64 {
	if u.Total == 0 {
		return 0
	}
	return float64(u.Used) / float64(u.Total) * 100
}

// slack is by how many percent a pressure must fall below its threshold to end: a node at the edge does not flap.
const slack = 1

// pressure says whether a node is short of disk and memory, given what it said last. The messages name thresholds and
// not what is measured: that changes all the time, and each change is a write.
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

// usage reads this machine: the disk that holds root, and the memory. Where root is not here, the engine is on another
// machine, and nothing is known of either.
func usage(root string) (disk, memory Usage) {
	disk, ok := diskUsage(root)
	if !ok {
		return Usage{}, Usage{}
	}
	return disk, memoryUsage("/proc/meminfo")
}

// diskUsage counts as `df` does: what is kept for root alone is neither used nor there.
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
