package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/caravanserai/cara/internal/test/testnet"
)

// packets are faults of the network between the members of etcd. A member that is cut off from the others still answers clients.
func packets() []Fault {
	possible := func(t *Target) bool { return len(t.Machines) > 1 }
	return []Fault{
		{"cut etcd leader off", possible, cutMember(true)},
		{"cut etcd follower off", possible, cutMember(false)},
		{"cut etcd members apart", possible, cutApart},
		{"deafen etcd member", possible, oneWay(true)},
		{"mute etcd member", possible, oneWay(false)},
		{"lose packets of etcd", possible, losePackets},
	}
}

// machine returns the machine of etcd's leader, or of another member, and the machines of all others. It waits for the end of an election.
func machine(t *Target, r *rand.Rand, leader bool) (m *testnet.Machine, others []*testnet.Machine) {
	at := t.Etcd.Leader()
	if !leader {
		at = (at + 1 + r.IntN(len(t.Machines)-1)) % len(t.Machines)
	}
	for i, other := range t.Machines {
		if i != at {
			others = append(others, other)
		}
	}
	return t.Machines[at], others
}

// cutMember cuts the leader or another member off all others, mostly for longer than a lease. A leader that is cut off believes for an
// election time-out that it leads.
func cutMember(leader bool) func(context.Context, *Target, *rand.Rand) error {
	return func(ctx context.Context, t *Target, r *rand.Rand) error {
		m, others := machine(t, r, leader) //nolint:contextcheck // it has that of the test
		var errs []error
		for _, other := range others {
			errs = append(errs, m.Ignore(ctx, other), other.Ignore(ctx, m))
		}
		return healed(ctx, t, silence(t, r), errs...)
	}
}

// cutApart cuts the leader off one member. Both reach the third one.
func cutApart(ctx context.Context, t *Target, r *rand.Rand) error {
	m, others := machine(t, r, true) //nolint:contextcheck // it has that of the test
	other := others[r.IntN(len(others))]
	return healed(ctx, t, silence(t, r), m.Ignore(ctx, other), other.Ignore(ctx, m))
}

// oneWay takes a member all packets of the others, or the others all of its packets. Either is the leader or not.
func oneWay(deaf bool) func(context.Context, *Target, *rand.Rand) error {
	return func(ctx context.Context, t *Target, r *rand.Rand) error {
		m, others := machine(t, r, r.IntN(2) == 0) //nolint:contextcheck // it has that of the test
		var errs []error
		for _, other := range others {
			if deaf {
				errs = append(errs, m.Ignore(ctx, other))
			} else {
				errs = append(errs, other.Ignore(ctx, m))
			}
		}
		return healed(ctx, t, silence(t, r), errs...)
	}
}

// losePackets loses some of the packets of one member or of all, also those from and to servers.
func losePackets(ctx context.Context, t *Target, r *rand.Rand) error {
	lossy := t.Machines
	if r.IntN(2) == 0 {
		at := r.IntN(len(t.Machines))
		lossy = t.Machines[at : at+1]
	}
	share := 0.02 + 0.3*r.Float64()
	var errs []error
	for _, m := range lossy {
		errs = append(errs, m.Lose(ctx, share))
	}
	return healed(ctx, t, some(r, 6*time.Second), errs...)
}

// healed waits for the duration of a fault of the network, and ends it at all machines.
func healed(ctx context.Context, t *Target, d time.Duration, begun ...error) error {
	if errors.Join(begun...) == nil {
		during(ctx, d)
	}
	for _, m := range t.Machines {
		begun = append(begun, m.Heal(ctx))
	}
	return errors.Join(begun...)
}
