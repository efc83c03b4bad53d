package probe

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// stuck is an engine whose commands never exit and take a while to be ended.
type stuck struct {
	engine.Streams
	running, most, started, ended atomic.Int32
	ending                        time.Duration
}

func (e *stuck) Start(context.Context, string, engine.Command) (engine.Process, error) {
	e.started.Add(1)
	e.most.Store(max(e.most.Load(), e.running.Add(1)))
	return &stuckProcess{engine: e}, nil
}

type stuckProcess struct {
	engine.Process
	engine *stuck
}

func (*stuckProcess) Wait(ctx context.Context, _ func([]byte, bool) error) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func (p *stuckProcess) End(ctx context.Context) {
	select {
	case <-time.After(p.engine.ending):
	case <-ctx.Done():
	}
	p.engine.running.Add(-1)
	p.engine.ended.Add(1)
}

// TestHangingCheck: a hanging command of a check is ended, and no other is started before it is gone. Each check still fails
// in time.
func TestHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eng := &stuck{ending: 12 * time.Second}
		command := &command{engine: eng, container: "1", args: []string{"sleep", "3600"}}
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 100 {
			began := time.Now()
			err := command.run(ctx, time.Second)
			if err == nil || time.Since(began) > time.Second {
				t.Fatalf("check %d: %v after %s", i, err, time.Since(began))
			}
			if want := `"sleep 3600" did not end within 1s`; i == 0 && err.Error() != want {
				t.Errorf("the first: %v, want %s", err, want)
			}
			if i == 1 && !strings.Contains(err.Error(), "still runs since an earlier check") {
				t.Errorf("the second: %v", err)
			}
			<-time.After(time.Second)
		}
		if eng.most.Load() != 1 || eng.started.Load() < 5 {
			t.Errorf("%d commands were started, %d of them side by side; want 5 and more, 1", eng.started.Load(), eng.most.Load())
		}
		cancel()
		command.wait()
		if eng.running.Load() != 0 {
			t.Errorf("%d commands are left after the last check", eng.running.Load())
		}
	})
}

// TestCheckCommandFails: what the engine says is the check's result.
func TestCheckCommandFails(t *testing.T) {
	no := errors.New("no such container")
	command := &command{engine: refusing{err: no}, container: "1", args: []string{"true"}}
	for range 2 {
		if err := command.run(t.Context(), time.Second); !errors.Is(err, no) {
			t.Errorf("%v, want %v", err, no)
		}
		command.wait()
	}
}

type refusing struct {
	engine.Streams
	err error
}

func (r refusing) Start(context.Context, string, engine.Command) (engine.Process, error) {
	return nil, r.err
}
