package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

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
	calling, stop := context.WithCancel(ctx)
	var calls []time.Duration
	var caller sync.WaitGroup
	caller.Go(func() { calls = f.calls(calling) })
	r := row{Scene: s.name}
	var err error
	r.Took, r.CPU, err = f.cost(func() (err error) {
		r.Note, err = s.play(f, ctx)
		return err
	})
	stop()
	caller.Wait()
	if err != nil {
		return row{}, fmt.Errorf("%s: %w", s.name, err)
	}
	used, err := f.usage()
	if err != nil {
		return row{}, err
	}
	r.ResidentMiB, r.PeakMiB, r.WireBytes = used.Resident>>20, used.Peak>>20, f.wire.total()-bytes
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

// cost returns how long something takes, and the server's processor time in it.
func (f *fleet) cost(do func() error) (took, cpu time.Duration, err error) {
	before, err := f.usage()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	after, err := f.usage()
	return took, after.Processor - before.Processor, err
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
