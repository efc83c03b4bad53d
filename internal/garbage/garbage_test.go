package garbage

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestAgent(t *testing.T) {
	for name, c := range map[string]struct {
		live uint64
		busy bool
		want int
	}{
		"before the first collection":  {0, true, 100},
		"busy and tiny":                {1 << 20, true, 400},
		"busy and small":               {8 << 20, true, 200},
		"busy, as large as the room":   {16 << 20, true, 100},
		"busy and large":               {300 << 20, true, 70},
		"idle and small: as Go has it": {5 << 20, false, 100},
		"idle and large":               {300 << 20, false, 70},
	} {
		if got := Agent(Heap{Live: c.live, Busy: c.busy}); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestServer(t *testing.T) {
	for name, c := range map[string]struct {
		heap Heap
		want int
	}{
		"before the first collection":               {Heap{Rate: 1 << 30, Busy: true}, 100},
		"large, at rest":                            {Heap{Live: 1000 << 20, Rate: 1 << 20}, 10},
		"large, some work: twenty seconds of it":    {Heap{Live: 1000 << 20, Rate: 20 << 20}, 40},
		"large and busy: as Go has it":              {Heap{Live: 1000 << 20, Rate: 500 << 20, Busy: true}, 100},
		"small, at rest: nearly as Go has it":       {Heap{Live: 10 << 20}, 80},
		"small and busy":                            {Heap{Live: 32 << 20, Rate: 100 << 20, Busy: true}, 100},
		"small, busy a moment ago: as Go has it":    {Heap{Live: 32 << 20, Rate: 100 << 20}, 100},
		"tiny and busy":                             {Heap{Live: 1 << 20, Rate: 100 << 20, Busy: true}, 100},
		"larger and busy":                           {Heap{Live: 64 << 20, Rate: 100 << 20, Busy: true}, 100},
		"large, at rest, but it has just collected": {Heap{Live: 1000 << 20, Rate: 1 << 20, Busy: true}, 10},
	} {
		if got := Server(c.heap); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestDiffers(t *testing.T) {
	for _, c := range []struct {
		next, set int
		want      bool
	}{{100, 100, false}, {105, 100, false}, {120, 100, true}, {80, 100, true}, {99, 105, true}, {95, 100, false}, {10, 11, false}} {
		if got := differs(c.next, c.set); got != c.want {
			t.Errorf("%d after %d: %v, want %v", c.next, c.set, got, c.want)
		}
	}
}

// TestBurst: a burst counts at once, and is forgotten within seconds.
func TestBurst(t *testing.T) {
	m := newMeter()
	kept := make([]byte, 64<<20)
	burst := m.look().Rate
	runtime.KeepAlive(kept)
	if burst < 64<<20 {
		t.Fatalf("the rate is %d", burst)
	}
	rate := burst
	for range 30 {
		next := smooth(rate, 1000)
		if next >= rate {
			t.Fatalf("the rate went from %d to %d", rate, next)
		}
		rate = next
	}
	if rate > burst/10 {
		t.Errorf("the rate is still %d of %d", rate, burst)
	}
	if got := smooth(rate, burst); got != burst {
		t.Errorf("the rate of the next burst is %d, want %d", got, burst)
	}
}

// TestRun: a program whose memory grows gets room, an idle one gets Go's pace again, and so does one whose Run has ended.
func TestRun(t *testing.T) {
	before := debug.SetGCPercent(standard)
	defer debug.SetGCPercent(before)
	current := func() int {
		p := debug.SetGCPercent(standard)
		debug.SetGCPercent(p)
		return p
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = Run(ctx, Agent) }()
		<-time.After(look / 2)
		runtime.GC()
		<-time.After(look)
		if got := current(); got <= standard {
			t.Errorf("busy: %d", got)
		}
		<-time.After((quiet + 1) * look)
		if got := current(); got != standard {
			t.Errorf("idle: %d", got)
		}
		runtime.GC()
		<-time.After(look)
		stop()
		synctest.Wait()
		if got := current(); got != standard {
			t.Errorf("ended: %d", got)
		}
	})
}

// TestOperator: the pace that the operator has chosen stays.
func TestOperator(t *testing.T) {
	before := debug.SetGCPercent(250)
	err := Run(t.Context(), Agent)
	if got := debug.SetGCPercent(before); err != nil || got != 250 {
		t.Errorf("got %d, %v", got, err)
	}
}
