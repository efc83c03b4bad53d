package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/caravanserai/cara/internal/test/testclock"
)

func clocks() []Fault {
	servers := func(t *Target) []*testclock.Clock { return t.ServerClocks }
	members := func(t *Target) []*testclock.Clock { return t.MemberClocks }
	return []Fault{
		{"step clock of server", func(t *Target) bool { return len(servers(t)) > 0 }, stepClock(servers)},
		{"step clock of etcd member", func(t *Target) bool { return len(members(t)) > 0 }, stepClock(members)},
	}
}

// stepClock sets one clock forward or back by minutes, sometimes more than once, and sets it right.
func stepClock(of func(*Target) []*testclock.Clock) func(context.Context, *Target, *rand.Rand) error {
	return func(ctx context.Context, t *Target, r *rand.Rand) error {
		all := of(t)
		clock := all[r.IntN(len(all))]
		var errs []error
		for range 1 + r.IntN(3) {
			ahead := some(r, 15*time.Minute)
			if r.IntN(2) == 0 {
				ahead = -ahead
			}
			errs = append(errs, clock.Step(ahead))
			during(ctx, some(r, 3*time.Second))
		}
		return errors.Join(append(errs, clock.Step(0))...)
	}
}
