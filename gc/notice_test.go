package gc

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
)

func TestExpiringIsSaidOnTimeAndOnce(t *testing.T) {
	run(t, func(t *testing.T, s *server, restart func()) {
		s.Put(project("pr", api.PhaseRunning, born(s.start), expiring(s.start.Add(time.Hour))),
			project("short", api.PhaseRunning, born(s.start), expiring(s.start.Add(10*time.Minute))))
		pass(50 * time.Minute)
		want(t, s, "10m0s delete(Expired) short", "45m0s notice pr", "5m0s notice short")
		restart()
		pass(5 * time.Minute)
		want(t, s)
		pass(6 * time.Minute)
		want(t, s, "1h0m0s delete(Expired) pr")
	})
}

func TestAnotherExpiryIsSaidAgain(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		s.Put(project("pr", api.PhaseRunning, born(s.start), expiring(s.start.Add(time.Hour))))
		pass(50 * time.Minute)
		// A changed expiry clears the condition. That is the server's part.
		s.Put(project("pr", api.PhaseRunning, born(s.start), expiring(s.start.Add(time.Hour)), extended(s.start.Add(3*time.Hour))))
		pass(4 * time.Hour)
		want(t, s, "2h45m0s notice pr", "3h0m0s delete(Expired) pr", "45m0s notice pr")
	})
}

func TestANoticeIsGivenAfterARestartThatSleptThroughItsTime(t *testing.T) {
	run(t, func(t *testing.T, s *server, restart func()) {
		s.Refuse("NoticeExpiry", api.Unavailable("away"))
		s.Put(project("pr", api.PhaseRunning, born(s.start), expiring(s.start.Add(time.Hour))))
		pass(50 * time.Minute)
		s.Refuse("NoticeExpiry", nil)
		restart()
		if p := fakecluster.Read[*carav1.Project](s.Cluster, "pr"); !api.IsTrue(p.Status.Conditions, api.CondExpiring) {
			t.Error("no notice")
		}
	})
}

func TestANoticeThatCannotBeGivenHoldsUpNoEnd(t *testing.T) {
	run(t, func(t *testing.T, s *server, _ func()) {
		s.Refuse("NoticeExpiry", api.Unavailable("away"))
		s.Put(project("pr", api.PhaseRunning, born(s.start), expiring(s.start.Add(time.Hour))))
		pass(2 * time.Hour)
		want(t, s, "1h0m0s delete(Expired) pr")
	})
}

// TestTheClockSteps: the wall clock decides, in whichever direction it was set. A step is noticed within a glance.
func TestTheClockSteps(t *testing.T) {
	end := 2 * time.Hour
	tests := map[string]struct {
		step     time.Duration // after 10 min
		from, to time.Duration // when, by the bubble's clock, it must be gone
	}{
		"not at all":            {0, end, end},
		"forward, not past it":  {time.Hour, end - time.Hour, end - time.Hour + glance},
		"forward, past it":      {3 * time.Hour, 10 * time.Minute, 10*time.Minute + glance},
		"backward":              {-time.Hour, end + time.Hour, end + time.Hour + glance},
		"backward by a week":    {-7 * 24 * time.Hour, end + 7*24*time.Hour, end + 7*24*time.Hour + glance},
		"forward by one second": {time.Second, end - time.Second, end - time.Second + glance},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *server, _ func()) {
				s.Put(project("pr", api.PhaseRunning, born(s.start), expiring(s.start.Add(end))), override("web", s.start.Add(end)))
				pass(10 * time.Minute)
				s.step(tt.step)
				pass(tt.from - 10*time.Minute - time.Millisecond)
				for _, done := range s.take() {
					if !strings.Contains(done, "notice") {
						t.Errorf("early: %s", done)
					}
				}
				pass(tt.to - tt.from + 2*time.Millisecond)
				if done := fmt.Sprint(s.take()); !strings.Contains(done, "delete(Expired) pr") || !strings.Contains(done, "clear web") {
					t.Errorf("not done by %s: %s", tt.to, done)
				}
			})
		})
	}
}

// TestRandomStepsNeverEarlyNeverLost sets the clock at random, restarts, and lets calls fail. A project is never deleted
// before the wall clock reaches its expiry, and is deleted within a glance after that if the server answers.
func TestRandomStepsNeverEarlyNeverLost(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	for range 30 {
		run(t, func(t *testing.T, s *server, restart func()) {
			ends := map[string]time.Time{}
			for i := range 10 {
				name := fmt.Sprintf("pr-%d", i)
				ends[name] = s.start.Add(time.Duration(rnd.IntN(7200)) * time.Second)
				s.Put(project(name, api.PhaseRunning, born(s.start), expiring(ends[name])))
			}
			s.beforeDelete(func(name string) {
				if at := s.now(); ends[name].After(at) {
					t.Errorf("%s went at %s, its end is %s", name, at, ends[name])
				}
			})
			for range 30 {
				switch rnd.IntN(5) {
				case 0:
					s.step(time.Duration(rnd.IntN(7200)-3600) * time.Second)
				case 1:
					restart()
				case 2:
					s.Refuse("DeleteProject", api.Unavailable("away"))
				case 3:
					s.Refuse("DeleteProject", nil)
				}
				pass(time.Duration(rnd.IntN(600)) * time.Second)
			}
			s.Refuse("DeleteProject", nil)
			pass(2 * time.Minute) // the queue's longest backoff, and a glance
			at := s.now().Add(-2 * time.Minute)
			for name, end := range ends {
				p := fakecluster.Read[*carav1.Project](s.Cluster, name)
				if p.Status.Phase != api.PhaseTerminating && !end.After(at) {
					t.Errorf("%s is there at %s, its end was %s", name, s.now(), end)
				}
			}
		})
	}
}
