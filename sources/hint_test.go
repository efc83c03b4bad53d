package sources

import (
	"slices"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// looks plays hints at these times against a source whose every look takes no time, and returns when it looked.
func looks(h *hints, start time.Time, heard []time.Duration) []time.Duration {
	var at []time.Duration
	for _, d := range heard {
		now := start.Add(d)
		for !h.at.IsZero() && h.at.Before(now) { // what the queue would have brought meanwhile
			then := h.at
			if due, _ := h.due(then); due {
				at = append(at, then.Sub(start))
			}
		}
		if h.heard(now) == 0 {
			if due, _ := h.due(now); due {
				at = append(at, d)
			}
		}
	}
	if !h.at.IsZero() {
		at = append(at, h.at.Sub(start))
		h.due(h.at)
	}
	return at
}

func TestHintsAreFollowedAtOnceAndStormsAreBounded(t *testing.T) {
	const ms = time.Millisecond
	every := func(step time.Duration, n int) (all []time.Duration) {
		for i := range n {
			all = append(all, time.Duration(i)*step)
		}
		return all
	}
	tests := map[string]struct {
		heard, want []time.Duration
		most        int // instead of want
	}{
		"one":                   {heard: []time.Duration{0}, want: []time.Duration{0}},
		"one a minute":          {heard: every(time.Minute, 3), want: every(time.Minute, 3)},
		"two at once":           {heard: []time.Duration{0, 0}, want: []time.Duration{0, time.Second}},
		"200 at once":           {heard: slices.Repeat([]time.Duration{0}, 200), want: []time.Duration{0, time.Second}},
		"200 in two seconds":    {heard: every(10*ms, 200), want: []time.Duration{0, time.Second, 3 * time.Second}},
		"200 in twenty seconds": {heard: every(100*ms, 200), most: 11},
		"quiet after a storm":   {heard: append(every(10*ms, 50), time.Minute), want: []time.Duration{0, time.Second, time.Minute}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := looks(&hints{}, time.Now(), tt.heard)
			if tt.most == 0 && !slices.Equal(got, tt.want) || tt.most > 0 && len(got) > tt.most {
				t.Errorf("looked at %v, want %v (at most %d)", got, tt.want, tt.most)
			}
			if last := tt.heard[len(tt.heard)-1]; got[len(got)-1] < last {
				t.Errorf("the last hint at %v was never followed: %v", last, got)
			}
		})
	}
}

func TestLanesHoldBackOneHostOnly(t *testing.T) {
	l := newLanes(2)
	for lane, want := range map[string][]bool{"a": {true, true, false}, "b": {true, true, false}} {
		for i, yes := range want {
			if got := l.enter(lane, string(rune('0'+i))); got != yes {
				t.Errorf("lane %s, source %d: entered %v", lane, i, got)
			}
		}
	}
	if l.enter("a", "2") || l.enter("a", "3") {
		t.Error("a full lane was entered")
	}
	l.enter("a", "3")
	for i, want := range []string{"2", "3", "2", ""} { // in order, and each once
		if got := l.leave("a"); got != want {
			t.Errorf("next is %q, want %q", got, want)
		}
		if l.busy["a"]++; i == 0 {
			l.enter("a", "2") // again, while another source waits
		}
	}
}

func TestLaneOf(t *testing.T) {
	for url, want := range map[string]string{
		"https://git.example.com/a.git": "git.example.com", "git@git.example.com:a.git": "git@git.example.com",
		"ssh://git@git.example.com:22/a": "git.example.com:22", "/srv/a.git": "/srv/a.git", "": "dir platform",
	} {
		src := &carav1.Source{Metadata: &carav1.ObjectMeta{Name: "platform"}, Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: url}}}
		if got := laneOf(src, 0); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
		if got := laneOf(src, 1); got != failing {
			t.Errorf("%s that fails: %s", url, got)
		}
	}
}
