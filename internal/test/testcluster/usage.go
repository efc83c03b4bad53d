package testcluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process takes of the machine.
type Usage struct {
	Resident, Peak int64 // memory now and at most so far, in bytes
	Threads        int
	// Processor is the time on a processor of all its threads together, also of those that have ended.
	Processor time.Duration
}

// UsageOf returns what a process takes.
func UsageOf(pid int) (Usage, error) {
	u, err := usageOf(pid)
	if err != nil {
		return Usage{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return u, nil
}

func usageOf(pid int) (u Usage, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	if u.Resident, err = statusField(text, "VmRSS"); err != nil {
		return u, err
	}
	if u.Peak, err = statusField(text, "VmHWM"); err != nil {
		return u, err
	}
	threads, err := statusField(text, "Threads")
	if err != nil {
		return u, err
	}
	u.Threads = int(threads)
	u.Processor, err = processor(pid)
	return u, err
}

// statusField returns a number of /proc/PID/status: bytes, or a count.
func statusField(text []byte, name string) (int64, error) {
	_, rest, ok := strings.Cut(string(text), "\n"+name+":")
	if !ok {
		return 0, fmt.Errorf("its status has no %s", name)
	}
	line, _, _ := strings.Cut(rest, "\n")
	value, kib := strings.CutSuffix(strings.TrimSpace(line), " kB")
	n, err := strconv.ParseInt(value, 10, 64)
	if kib {
		n <<= 10
	}
	return n, err
}

// processor asks the clock of the process, as clock_getcpuclockid(3) names it: the tick of /proc/PID/stat is as long as what an
// idle process needs in ten seconds.
func processor(pid int) (time.Duration, error) {
	const wholeProcess = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|wholeProcess), &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
