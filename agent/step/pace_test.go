package step

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
)

// TestPaced: what was done without effect, or often, waits; what was not done yet, and what had an effect, does not.
func TestPaced(t *testing.T) {
	limits := RestartLimits{}.WithDefaults()
	start := Action{Kind: KindStartContainer, Service: "a", ID: "1", Name: "cara-p.a", Reason: reasonNext}
	created := &Have{Containers: []engine.Container{{ID: "1", Name: "cara-p.a", State: engine.StateCreated}}}
	running := &Have{Containers: []engine.Container{{ID: "1", Name: "cara-p.a", State: engine.StateRunning}}}
	for name, tt := range map[string]struct {
		looks []*Have         // after each try; before the first the container is created
		want  []time.Duration // how long the next try waits after each
		why   string          // of the last wait
	}{
		"no effect": {
			looks: []*Have{created, created, created, created, created, created, created},
			want:  []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second},
			why:   "starting container cara-p.a had no effect: the engine did not refuse it, but nothing changed (7 tries); next try at ",
		},
		"an effect that does not last": {
			looks: []*Have{running, created, running, created, running, created},
			want:  []time.Duration{0, 0, 0, 1 * time.Second, 2 * time.Second, 4 * time.Second},
			why:   "starting container cara-p.a was needed 6 times; next try at ",
		},
		"no effect, then one": {
			looks: []*Have{created, running},
			want:  []time.Duration{1 * time.Second, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			done, before := History{}, created
			now := time.Unix(1_800_000_000, 0)
			var got []time.Duration
			var last Action
			for _, look := range tt.looks {
				done.Add(start, before, limits, now)
				done.Judge(look)
				last = done.Pace([]Action{start}, limits, now)[0]
				wait := time.Duration(0)
				if last.Kind == KindWait {
					wait = last.Until.Sub(now)
				}
				got = append(got, wait)
				before, now = look, now.Add(wait)
				if again := done.Pace([]Action{start}, limits, now)[0]; again.Kind != KindStartContainer {
					t.Errorf("when the wait is over: %v", again)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("waits (-want +got):\n%s", diff)
			}
			if tt.why != "" && !strings.HasPrefix(last.Reason, tt.why) {
				t.Errorf("reason %q, want %q", last.Reason, tt.why)
			}
			later := now.Add(limits.Reset)
			done.Add(start, created, limits, later)
			done.Judge(running)
			if x := done.Pace([]Action{start}, limits, later)[0]; x.Kind != KindStartContainer {
				t.Errorf("after a long rest: %v", x)
			}
			if x := done.Pace([]Action{{Kind: KindStopContainer, Service: "a", ID: "1", Name: "cara-p.a"}}, limits, now)[0]; x.Kind != KindStopContainer {
				t.Errorf("another action: %v", x)
			}
		})
	}
}

// TestEveryKindIsPaced: an engine that accepts every call and does nothing is asked a few times a minute, whatever the kind of the action.
func TestEveryKindIsPaced(t *testing.T) {
	limits := RestartLimits{}.WithDefaults()
	have := &Have{
		Containers: []engine.Container{{ID: "1", Name: "x", State: engine.StateRunning}},
		Networks:   []engine.Network{{ID: "1", Name: "x"}},
		Volumes:    []engine.Volume{{Name: "x"}},
	}
	for _, kind := range []Kind{
		KindPull, KindCreateNetwork, KindRemoveNetwork, KindCreateVolume, KindRemoveVolume, KindCreateContainer, KindStartContainer,
		KindRestartContainer, KindUnpauseContainer, KindConnectContainer, KindUpdateContainer, KindStopContainer, KindDeleteContainer,
	} {
		action, done, calls := Action{Kind: kind, Service: "a", ID: "1", Name: "x"}, History{}, 0
		begin := time.Unix(1_800_000_000, 0)
		for now := begin; now.Sub(begin) < time.Minute; now = now.Add(5 * time.Millisecond) {
			done.Judge(have)
			if done.Pace([]Action{action}, limits, now)[0].Kind == KindWait {
				continue
			}
			calls++
			done.Add(action, have, limits, now)
		}
		if calls > 7 {
			t.Errorf("%s: %d calls in a minute", kind, calls)
		}
		if text := action.doing(); strings.HasPrefix(text, string(kind)) {
			t.Errorf("%s has no words of its own: %q", kind, text)
		}
	}
}
