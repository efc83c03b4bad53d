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

// ticket is a right that the test takes away.
type ticket struct {
	is       store.Lease
	lost     chan struct{}
	released chan struct{}
}

func newTicket(created int64) ticket {
	return ticket{store.Lease{Name: "gc", Created: created}, make(chan struct{}), make(chan struct{})}
}

func (k ticket) Is() store.Lease       { return k.is }
func (k ticket) Lost() <-chan struct{} { return k.lost }
func (k ticket) Release()              { close(k.released) }

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

// rig is a task whose loop and rights are the test's.
type rig struct {
	task
	tickets chan right
	began   chan store.Lease
	end     chan error
	result  chan error
	stop    context.CancelFunc
}

func newRig(t *testing.T, with companions) *rig {
	r := &rig{tickets: make(chan right, 2), began: make(chan store.Lease), end: make(chan error), result: make(chan error, 1)}
	var has store.Lease
	r.task = task{
		name: "gc", log: slog.New(slog.DiscardHandler), with: with,
		connect: func(loop string, lease store.Lease) (grpc.ClientConnInterface, error) {
			if loop != "gc" {
				t.Errorf("the loop %s is connected", loop)
			}
			has = lease
			return nil, nil
		},
		build: func(grpc.ClientConnInterface, *slog.Logger) (runner, error) { return runs{r.began, has, r.end}, nil },
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	t.Cleanup(stop)
	go func() {
		r.result <- r.always(ctx, func(ctx context.Context, _ string) (right, error) {
			select {
			case k := <-r.tickets:
				return k, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
	}()
	return r
}

// TestLoopFollowsItsRight: a loop runs while its server has the right to, with the lease of that time in what it writes. It ends
// before the right is given back, and runs again with the next right.
func TestLoopFollowsItsRight(t *testing.T) {
	r := newRig(t, companions{})
	first, second := newTicket(1), newTicket(2)
	r.tickets <- first
	if lease := <-r.began; lease != first.is {
		t.Errorf("it writes with %v", lease)
	}
	close(first.lost)
	<-first.released
	r.tickets <- second
	if lease := <-r.began; lease != second.is {
		t.Errorf("it writes with %v", lease)
	}
	r.stop()
	<-second.released
	if err := <-r.result; err != nil {
		t.Errorf("a loop that was stopped: %v", err)
	}
}

// TestALateRightIsGivenBack: a right that arrives when the server ends is not kept.
func TestALateRightIsGivenBack(t *testing.T) {
	only := newTicket(1)
	ctx, stop := context.WithCancel(t.Context())
	err := task{name: "gc"}.always(ctx, func(context.Context, string) (right, error) {
		stop()
		return only, nil
	})
	if err != nil {
		t.Errorf("a server that ends: %v", err)
	}
	select {
	case <-only.released:
	default:
		t.Error("the right is kept")
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
	r := newRig(t, companions{})
	only, failure := newTicket(1), errors.New("broken")
	r.tickets <- only
	<-r.began
	r.end <- failure
	<-only.released
	if err := <-r.result; !errors.Is(err, failure) {
		t.Errorf("the loop has failed: %v", err)
	}
}

// TestLoopsAlone: a server that has no others beside it runs each loop at once, and its transactions have no lease.
func TestLoopsAlone(t *testing.T) {
	r, err := alone(t.Context(), "gc")
	if err != nil || r.Is() != (store.Lease{}) || r.Lost() != nil {
		t.Errorf("alone: %v, %v", r, err)
	}
	r.Release()
}

// TestShares: a server counts the loops that it has or wants, and hesitates the longer the more they are.
func TestShares(t *testing.T) {
	var s shares
	var wg sync.WaitGroup
	var mu sync.Mutex
	waits := map[time.Duration]int{}
	bids := make([]bid, 5)
	for i := range bids {
		bids[i].s = &s
		wg.Go(func() {
			wait := bids[i].hesitate()
			mu.Lock()
			defer mu.Unlock()
			waits[wait]++
		})
	}
	wg.Wait()
	for has := range bids {
		if waits[hesitation(has)] != 1 {
			t.Errorf("the waits are %v", waits)
		}
	}
	bids[0].withdraw()
	bids[0].withdraw() // it has been withdrawn
	if again := bids[0].hesitate(); again != hesitation(4) || bids[0].hesitate() != again {
		t.Errorf("with four others it waits %v", again)
	}
	for i := range bids {
		bids[i].withdraw()
	}
	if s.has != 0 || hesitation(0) != 0 {
		t.Errorf("%d leases are left", s.has)
	}
}

// TestCompanions: what belongs to a loop runs with its lease, before it and beside it, and is tried again until it succeeds.
func TestCompanions(t *testing.T) {
	only := newTicket(3)
	var tried atomic.Int32
	settled, kept := make(chan store.Lease, 1), make(chan store.Lease, 1)
	r := newRig(t, companions{
		first: func(ctx context.Context) error {
			if tried.Add(1) == 1 {
				return errors.New("etcd does not answer")
			}
			settled <- store.LeaseOf(ctx)
			return nil
		},
		while: func(ctx context.Context) error {
			kept <- store.LeaseOf(ctx)
			<-ctx.Done()
			return ctx.Err()
		},
	})
	r.tickets <- only
	<-r.began
	if lease := <-settled; lease != only.is { // it was settled before the loop began
		t.Errorf("settled with %v", lease)
	}
	if lease := <-kept; lease != only.is {
		t.Errorf("kept with %v", lease)
	}
	close(only.lost)
	<-only.released
}
