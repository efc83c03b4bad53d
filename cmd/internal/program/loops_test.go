package program

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/store"
)

// testLease is a lease that the test takes away.
type testLease struct {
	condition store.Lease
	lost      chan struct{}
	released  chan struct{}
}

func newTestLease(created int64) testLease {
	return testLease{store.Lease{Name: "gc", Created: created}, make(chan struct{}), make(chan struct{})}
}

func (l testLease) Condition() store.Lease { return l.condition }
func (l testLease) Lost() <-chan struct{}  { return l.lost }
func (l testLease) Release()               { close(l.released) }

// runs is a loop that tells when it runs.
type runs struct {
	began chan store.Lease
	lease store.Lease
	end   chan error
}

func (r runs) Run(ctx context.Context) error {
	r.began <- r.lease
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-r.end:
		return err
	}
}

// rig is a task whose loop and leases are the test's.
type rig struct {
	task
	leases chan lease
	began  chan store.Lease
	end    chan error
	result chan error
	stop   context.CancelFunc
}

func newRig(t *testing.T, extra extraWork) *rig {
	r := &rig{leases: make(chan lease, 2), began: make(chan store.Lease), end: make(chan error), result: make(chan error, 1)}
	var has store.Lease
	r.task = task{
		name: "gc", log: slog.New(slog.DiscardHandler), extra: extra,
		connect: func(loop string, condition store.Lease) (grpc.ClientConnInterface, error) {
			if loop != "gc" {
				t.Errorf("the loop %s is connected", loop)
			}
			has = condition
			return nil, nil
		},
		build: func(grpc.ClientConnInterface, *slog.Logger) (runner, error) { return runs{r.began, has, r.end}, nil },
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	t.Cleanup(stop)
	go func() {
		r.result <- r.runWhenLeased(ctx, func(ctx context.Context, _ string) (lease, error) {
			select {
			case l := <-r.leases:
				return l, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
	}()
	return r
}

// TestLoopRunsWhileLeased: a loop runs while its server has the lease, which is a condition of what it writes. It ends before the lease is
// given back, and runs again with the next lease.
func TestLoopRunsWhileLeased(t *testing.T) {
	r := newRig(t, extraWork{})
	first, second := newTestLease(1), newTestLease(2)
	r.leases <- first
	if has := <-r.began; has != first.condition {
		t.Errorf("it writes with %v", has)
	}
	close(first.lost)
	<-first.released
	r.leases <- second
	if has := <-r.began; has != second.condition {
		t.Errorf("it writes with %v", has)
	}
	r.stop()
	<-second.released
	if err := <-r.result; err != nil {
		t.Errorf("a loop that was stopped: %v", err)
	}
}

// TestALateLeaseIsGivenBack: a lease that arrives when the server ends is not kept.
func TestALateLeaseIsGivenBack(t *testing.T) {
	only := newTestLease(1)
	ctx, stop := context.WithCancel(t.Context())
	err := task{name: "gc"}.runWhenLeased(ctx, func(context.Context, string) (lease, error) {
		stop()
		return only, nil
	})
	if err != nil {
		t.Errorf("a server that ends: %v", err)
	}
	select {
	case <-only.released:
	default:
		t.Error("the lease is kept")
	}
}

// TestWaitingTellsErrorsOnce: an operator hears why a loop does not run, and not once a second.
func TestWaitingTellsErrorsOnce(t *testing.T) {
	var log bytes.Buffer
	w := waiting{log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, err := range []error{errors.New("silent"), errors.New("silent"), errors.New("full"), nil, errors.New("full")} {
		w.tell("b", err)
	}
	if silent, full := strings.Count(log.String(), "error=silent"), strings.Count(log.String(), "error=full"); silent != 1 || full != 2 {
		t.Errorf("told %d and %d times:\n%s", silent, full, &log)
	}
}

// TestLoopFails: the failure of a loop ends its server, and another server may run the loop.
func TestLoopFails(t *testing.T) {
	r := newRig(t, extraWork{})
	only, failure := newTestLease(1), errors.New("broken")
	r.leases <- only
	<-r.began
	r.end <- failure
	<-only.released
	if err := <-r.result; !errors.Is(err, failure) {
		t.Errorf("the loop has failed: %v", err)
	}
}

// TestLoopsAlone: a server that has no others beside it runs each loop at once, and its transactions have no lease.
func TestLoopsAlone(t *testing.T) {
	l, err := withoutLease(t.Context(), "gc")
	if err != nil || l.Condition() != (store.Lease{}) || l.Lost() != nil {
		t.Errorf("alone: %v, %v", l, err)
	}
	l.Release()
}

// TestDelay: a server counts the leases that it has or is about to take. The more they are, the longer it waits before it takes one.
func TestDelay(t *testing.T) {
	var e etcdLeases
	var wg sync.WaitGroup
	var mu sync.Mutex
	waits := map[time.Duration]int{}
	attempts := make([]attempt, 5)
	for i := range attempts {
		attempts[i].of = &e
		wg.Go(func() {
			wait := attempts[i].begin()
			mu.Lock()
			defer mu.Unlock()
			waits[wait]++
		})
	}
	wg.Wait()
	for leases := range attempts {
		if waits[delay(leases)] != 1 {
			t.Errorf("the waits are %v", waits)
		}
	}
	attempts[0].end()
	attempts[0].end() // it has ended
	if again := attempts[0].begin(); again != delay(4) || attempts[0].begin() != again {
		t.Errorf("with four others it waits %v", again)
	}
	for i := range attempts {
		attempts[i].end()
	}
	if e.count != 0 || delay(0) != 0 {
		t.Errorf("%d leases are left", e.count)
	}
}

// TestExtraWork: the extra work of a loop runs with its lease, before it and beside it, and is tried again until it succeeds.
func TestExtraWork(t *testing.T) {
	only := newTestLease(3)
	var tried atomic.Int32
	settled, kept := make(chan store.Lease, 1), make(chan store.Lease, 1)
	r := newRig(t, extraWork{
		before: func(ctx context.Context) error {
			if tried.Add(1) == 1 {
				return errors.New("etcd does not answer")
			}
			settled <- store.LeaseOf(ctx)
			return nil
		},
		during: func(ctx context.Context) error {
			kept <- store.LeaseOf(ctx)
			<-ctx.Done()
			return ctx.Err()
		},
	})
	r.leases <- only
	<-r.began
	if has := <-settled; has != only.condition { // it was settled before the loop began
		t.Errorf("settled with %v", has)
	}
	if has := <-kept; has != only.condition {
		t.Errorf("kept with %v", has)
	}
	close(only.lost)
	<-only.released
}
