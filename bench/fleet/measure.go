package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// row has the figures of one scene.
type row struct {
	Scene       string        `json:"scene"`
	Took        time.Duration `json:"tookNanoseconds"`
	CPU         time.Duration `json:"serverCpuNanoseconds"`
	ResidentMiB int64         `json:"serverResidentMiB"`
	PeakMiB     int64         `json:"serverPeakMiB"`
	CallP50     time.Duration `json:"callP50Nanoseconds"`
	CallP99     time.Duration `json:"callP99Nanoseconds"`
	AssignP50   time.Duration `json:"assignP50Nanoseconds"`
	AssignP99   time.Duration `json:"assignP99Nanoseconds"`
	WireBytes   int64         `json:"wireBytes"`
	NotReady    int           `json:"notReady"`
	Broken      int           `json:"brokenConnections"`
	Note        string        `json:"note"`
}

// callEvery is the time between two calls that a user makes while a scene plays.
const callEvery = 25 * time.Millisecond

// measure plays one scene, and makes calls as a user while it does.
func (f *fleet) measure(ctx context.Context, s scene) (row, error) {
	f.mu.Lock()
	f.notReady, f.breaks, f.took = 0, 0, nil
	clear(f.changes)
	f.mu.Unlock()
	bytes := f.wire.total()
	before, err := processor(f.Server.Pid())
	if err != nil {
		return row{}, err
	}
	calling, stop := context.WithCancel(ctx)
	var calls []time.Duration
	var caller sync.WaitGroup
	caller.Go(func() { calls = f.calls(calling) })
	began := time.Now()
	note, err := s.play(f, ctx)
	took := time.Since(began)
	stop()
	caller.Wait()
	if err != nil {
		return row{}, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := processor(f.Server.Pid())
	if err != nil {
		return row{}, err
	}
	r := row{Scene: s.name, Took: took, CPU: after - before, WireBytes: f.wire.total() - bytes, Note: note}
	if r.ResidentMiB, r.PeakMiB, err = memory(f.Server.Pid()); err != nil {
		return row{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r.NotReady, r.Broken = f.notReady, f.breaks
	if f.breaks > 0 {
		r.Note += fmt.Sprintf("; the last connection broke because of: %v", f.lastErr)
	}
	r.CallP50, r.CallP99 = quantile(calls, 0.5), quantile(calls, 0.99)
	r.AssignP50, r.AssignP99 = quantile(f.took, 0.5), quantile(f.took, 0.99)
	return r, nil
}

// calls gets a project again and again until ctx ends, and returns how long each call took.
func (f *fleet) calls(ctx context.Context) []time.Duration {
	var took []time.Duration
	client := carav1.NewProjectServiceClient(f.conn)
	tick := time.NewTicker(callEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		_, err := client.GetProject(ctx, &carav1.GetRequest{Name: looseName(0)})
		if ctx.Err() != nil {
			return took
		}
		if err == nil {
			took = append(took, time.Since(began))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return took
		}
	}
}

// quantile returns a quantile of some durations, or 0 if there are none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)-1))]
}

// processor returns how much time on a processor a process has had. It asks the clock of the process, as clock_getcpuclockid(3)
// names it.
func processor(pid int) (time.Duration, error) {
	const wholeProcess = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|wholeProcess), &t); err != nil {
		return 0, fmt.Errorf("read the processor clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// memory returns the resident memory of a process and its maximum, in MiB.
func memory(pid int) (now, peak int64, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmRSS": &now, "VmHWM": &peak}[name]
		if into == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
		}
		*into = kib >> 10
	}
	return now, peak, nil
}
