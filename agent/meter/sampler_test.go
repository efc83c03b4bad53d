package meter

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// far is an engine on another machine: this kernel shows none of its containers. Each has used a quarter of a core since 1970.
type far struct {
	measured atomic.Int64
	stopped  string // the id of a container that has stopped since the list
}

func (f *far) InspectContainer(_ context.Context, id string) (engine.Container, error) {
	if id == f.stopped {
		return engine.Container{ID: id, State: engine.StateExited}, nil
	}
	return engine.Container{ID: id, State: engine.StateRunning, PID: 1 << 30}, nil
}

func (f *far) Stats(ctx context.Context, _ string, _ bool, emit func(engine.ContainerUsage)) error {
	f.measured.Add(1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	emit(engine.ContainerUsage{CPUTime: time.Duration(time.Now().UnixNano() / 4), Memory: 100})
	return nil
}

func listed(id string, of Service, state string) engine.Container {
	return engine.Container{ID: id, State: state, Labels: map[string]string{
		api.LabelProject: of.Project, api.LabelUID: of.UID, api.LabelService: of.Name,
	}}
}

// TestFarEngine: an engine on another machine is asked once a minute, and the mean counts for each interval.
func TestFarEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &far{}
		s := running(t, e, nil)
		s.Saw([]engine.Container{listed("c1", web, engine.StateRunning), listed("c2", web, engine.StateExited)})
		<-time.After(10*time.Minute + time.Second) // by the clock of synctest
		synctest.Wait()
		got := s.Of("shop", "u1", nil)
		if len(got) != 1 || len(got[0].GetCpuMillis()) < 35 {
			t.Fatalf("got %v, want one service with values for ten minutes", got)
		}
		values := got[0].GetCpuMillis()
		for i, v := range values[1 : len(values)-4] { // the first reading has nothing before it, the last ones are still to come
			if v < 249 || v > 251 {
				t.Errorf("value %d is %v, want 250", i+1, v)
			}
		}
		if n := e.measured.Load(); n < 9 || n > 11 {
			t.Errorf("the engine measured %d times in ten minutes, want about 10", n)
		}
	})
}

// running starts a sampler until the end of the test.
func running(t *testing.T, e Engine, requests func(project, service string) (uint64, bool)) *Sampler {
	ctx, cancel := context.WithCancel(t.Context())
	s, done := NewSampler(e, requests, 0), make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestFarEngineIsNotFlooded: with many containers the engine is asked no more often than the bound says.
func TestFarEngineIsNotFlooded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &far{stopped: "c7"}
		s := running(t, e, nil)
		var all []engine.Container
		for n := range 500 {
			all = append(all, listed("c"+string(rune('0'+n)), Service{"p" + string(rune('0'+n)), "u", "web"}, engine.StateRunning))
		}
		s.Saw(all)
		const steps = 40
		<-time.After(steps*Interval + time.Second)
		synctest.Wait()
		if n, most := e.measured.Load(), int64(perStep*steps); n > most || n < most/2 {
			t.Errorf("%d measurements in %d intervals, want at most %d", n, steps, most)
		}
		if len(s.history.projects) < 400 {
			t.Errorf("%d of 500 services have had a turn in ten minutes", len(s.history.projects))
		}
		if s.history.projects["p7"] != nil {
			t.Error("a container that does not run has values")
		}
	})
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := uint64(0)
		s := running(t, broken{}, func(project, service string) (uint64, bool) {
			count += 30
			return count, project == "shop" && service == "web"
		})
		s.Saw([]engine.Container{
			listed("c1", web, engine.StateRunning), listed("c2", web, engine.StateRunning), listed("c3", Service{"shop", "u1", "db"}, engine.StateRunning),
		})
		<-time.After(4*Interval + time.Second)
		synctest.Wait()
		got := s.Of("shop", "u1", []string{"web"})
		if len(got) != 1 {
			t.Fatalf("got %v, want one service", got)
		}
		// Both services are asked for in each interval, in any order: 60 requests more each time, or 30 or 90.
		if values := got[0].GetRequestsPerSecond(); len(values) < 2 || slices.Min(values) < 2 || slices.Max(values) > 6 {
			t.Errorf("requests a second are %v, want about 4", values)
		}
		if cpu := got[0].GetCpuMillis(); !cmp.Equal(cpu, []float32{-1, -1, -1}) {
			t.Errorf("an engine that does not answer gives %v, want gaps", cpu)
		}
		if db := s.Of("shop", "u1", []string{"db"}); db != nil {
			t.Errorf("of a service without routes and figures: %v", db)
		}
	})
}

// TestRequestsBesideASlowEngine: the requests are counted once in each interval, however long the engine takes.
func TestRequestsBesideASlowEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := running(t, &uneven{}, func(string, string) (uint64, bool) { return uint64(10 * time.Since(began).Seconds()), true })
		s.Saw([]engine.Container{listed("c1", web, engine.StateRunning)})
		<-time.After(6*Interval + time.Second)
		synctest.Wait()
		got := s.Of("shop", "u1", nil)
		if len(got) != 1 || len(got[0].GetRequestsPerSecond()) < 4 {
			t.Fatalf("got %v, want one service with four values or more", got)
		}
		for i, v := range got[0].GetRequestsPerSecond() {
			if v < 9.9 || v > 10.1 {
				t.Errorf("value %d is %v requests a second, want 10", i, v)
			}
		}
	})
}

// uneven is an engine that fails at once, then after a while, and so on.
type uneven struct {
	broken
	calls atomic.Int64
}

func (u *uneven) InspectContainer(ctx context.Context, id string) (engine.Container, error) {
	if u.calls.Add(1)%2 == 0 {
		<-time.After(8 * time.Second)
	}
	return u.broken.InspectContainer(ctx, id)
}

// broken is an engine that does not answer.
type broken struct{}

func (broken) InspectContainer(context.Context, string) (engine.Container, error) {
	return engine.Container{}, errors.New("broken")
}

func (broken) Stats(context.Context, string, bool, func(engine.ContainerUsage)) error {
	return errors.New("broken")
}
