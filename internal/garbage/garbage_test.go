package garbage

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestPercent(t *testing.T) {
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
		if got := percent(c.live, c.busy); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
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
		go func() { _ = Run(ctx) }()
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
	err := Run(t.Context())
	if got := debug.SetGCPercent(before); err != nil || got != 250 {
		t.Errorf("got %d, %v", got, err)
	}
}
