package stream

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// rotating is a log that drops its oldest lines when it has too many.
type rotating struct {
	engine.Streams
	written []engine.LogLine
	keeps   int
}

func (e *rotating) Logs(_ context.Context, _ string, o engine.LogOptions, emit func(engine.LogLine) error) error {
	lines := e.written[max(0, len(e.written)-e.keeps):]
	if o.Last > 0 {
		lines = lines[max(0, len(lines)-o.Last):]
	}
	for _, l := range lines {
		if l.Time.Before(o.Since) {
			continue
		}
		if err := emit(l); err != nil {
			return err
		}
	}
	return nil
}

// TestLogReader: each line of a growing and rotated log is forwarded once, or is in a gap that is reported at its position.
// Lines may have equal times and texts, and need not be ordered by time.
func TestLogReader(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		log := &rotating{keeps: []int{500, 5000, 1 << 30}[r.IntN(3)]}
		now := time.Unix(1_800_000_000, 0)
		write := func(n int) {
			for range n {
				now = now.Add(time.Duration(r.IntN(3)) * time.Microsecond)
				at := now.Add(-time.Duration(r.IntN(2)*r.IntN(1000)) * time.Microsecond)
				texts := 3
				if log.keeps < 1<<30 {
					texts = 1 << 30 // if a line with the same time and text is rotated away, it is unknown which one
				}
				log.written = append(log.written, engine.LogLine{Time: at, Stderr: r.IntN(2) == 0, Text: fmt.Sprint(r.IntN(texts))})
			}
		}
		passed, gaps := 0, 0 // passed: how many of what was written are accounted for
		reader := &logReader{engine: log, seed: maphash.MakeSeed(), place: &logPlace{}, emit: func(l engine.LogLine, lost int32) error {
			if lost > 0 {
				gaps++
				passed = max(0, len(log.written)-log.keeps)
			}
			if passed >= len(log.written) || log.written[passed] != l {
				return fmt.Errorf("line %d is not the one that comes next", passed)
			}
			passed++
			return nil
		}}
		write(r.IntN(400))
		for range 30 {
			if err := reader.read(t.Context(), engine.LogOptions{}, false); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if passed != len(log.written) {
				t.Fatalf("seed %d: %d of %d lines were passed on", seed, passed, len(log.written))
			}
			write([]int{0, 1, r.IntN(100), r.IntN(3000), r.IntN(20_000)}[r.IntN(5)])
			now = now.Add(time.Duration(r.IntN(2)*r.IntN(3)) * time.Second)
		}
		if log.keeps == 1<<30 && gaps > 0 {
			t.Errorf("seed %d: %d gaps in a log that loses nothing", seed, gaps)
		}
	}
}

// TestLogGapIsCounted: the size of a gap is estimated from how fast the lines came.
func TestLogGapIsCounted(t *testing.T) {
	log := &rotating{keeps: 100}
	now := time.Unix(1_800_000_000, 0)
	lost, got := int32(0), 0
	reader := &logReader{engine: log, seed: maphash.MakeSeed(), place: &logPlace{}, emit: func(_ engine.LogLine, n int32) error {
		lost, got = lost+n, got+1
		return nil
	}}
	for _, n := range []int{100, 100, 5000} {
		for range n {
			now = now.Add(time.Millisecond)
			log.written = append(log.written, engine.LogLine{Time: now, Text: "x"})
		}
		if err := reader.read(t.Context(), engine.LogOptions{}, false); err != nil {
			t.Fatal(err)
		}
	}
	if got != 300 || lost < 4850 || lost > 4950 {
		t.Errorf("%d lines came and about %d were lost, want 300 and 4900", got, lost)
	}
}
