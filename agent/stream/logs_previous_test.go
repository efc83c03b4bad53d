package stream

import (
	"fmt"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

func at(second int) time.Time { return time.Unix(int64(second), 0) }

func TestBeforeStart(t *testing.T) {
	for name, c := range map[string]struct {
		c    engine.Container
		want time.Time
	}{
		"never started":      {engine.Container{}, time.Time{}},
		"runs again":         {engine.Container{StartedAt: at(20), FinishedAt: at(10)}, at(15)},
		"runs for the first": {engine.Container{StartedAt: at(20)}, at(20).Add(-startLag)},
		"has ended":          {engine.Container{StartedAt: at(20), FinishedAt: at(30)}, at(20).Add(-startLag)},
	} {
		if got := beforeStart(c.c); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestLastLines(t *testing.T) {
	for most, want := range map[int]string{0: "12345", -1: "", 1: "5", 2: "45", 5: "12345", 9: "12345"} {
		last := &lastLines{most: most}
		for i := range 5 {
			last.add(engine.LogLine{Text: fmt.Sprint(i + 1)})
		}
		got := ""
		for _, l := range last.lines() {
			got += l.Text
		}
		if got != want || last.count != 5 {
			t.Errorf("the last %d: %q of %d, want %q", most, got, last.count, want)
		}
	}
}

func TestServing(t *testing.T) {
	old := engine.Container{ID: "old", StartedAt: at(1), Networks: map[string]engine.Attachment{"cara-p": {IP: "10.0.0.2"}}}
	young := engine.Container{ID: "young", StartedAt: at(2), Networks: map[string]engine.Attachment{"cara-p": {IP: "10.0.0.3"}}}
	for ip, want := range map[string]string{"10.0.0.2": "old", "10.0.0.3": "young", "10.0.0.4": "young", "": "young"} {
		for _, running := range [][]engine.Container{{old, young}, {young, old}} {
			if got := serving(running, "cara-p", ip); got.ID != want {
				t.Errorf("with %q in the ingress: %s, want %s", ip, got.ID, want)
			}
		}
	}
}
