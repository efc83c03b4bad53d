package fault

import (
	"context"
	"math/rand/v2"
	"time"
)

func members() []Fault {
	hasEtcd := func(t *Target) bool { return t.Etcd != nil && len(t.Etcd.Endpoints) > 1 }
	return []Fault{
		{"kill etcd member", hasEtcd, killMember},
		{"pause etcd member", hasEtcd, pauseMember},
	}
}

func killMember(ctx context.Context, t *Target, r *rand.Rand) error {
	i := r.IntN(len(t.Etcd.Endpoints))
	t.Etcd.Kill(i)
	during(ctx, some(r, 2*time.Second))
	t.Etcd.Run(i) //nolint:contextcheck // it has that of the test
	return nil
}

// pauseMember is a member that all others have lost, and that believes that it still leads.
func pauseMember(ctx context.Context, t *Target, r *rand.Rand) error {
	m := t.Etcd.Member(r.IntN(len(t.Etcd.Endpoints)))
	if err := m.Pause(); err != nil {
		return err
	}
	during(ctx, some(r, 4*time.Second))
	return m.Resume()
}
