package fault

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/internal/test/testlink"
)

func links() []Fault {
	hasLinks := func(t *Target) bool { return len(t.Links) > 0 }
	several := func(t *Target) bool { return hasLinks(t) && t.Etcd != nil }
	return []Fault{
		{"cut link", hasLinks, onLink((*testlink.Link).Hold)},
		{"cut link there", hasLinks, onLink((*testlink.Link).HoldThere)},
		{"cut link back", hasLinks, onLink((*testlink.Link).HoldBack)},
		{"break link", hasLinks, breakLink},
		{"slow link", hasLinks, slowLink},
		{"cut server off etcd", several, cutOff},
		{"cut server off agents and servers", several, cutFront},
	}
}

func link(t *Target, r *rand.Rand) *testlink.Link {
	names := slices.Sorted(maps.Keys(t.Links))
	return t.Links[names[r.IntN(len(names))]]
}

// onLink stops the data of one link. Afterwards it sometimes breaks the connections without it, as a firewall does that has
// forgotten them.
func onLink(hold func(*testlink.Link)) func(context.Context, *Target, *rand.Rand) error {
	return func(ctx context.Context, t *Target, r *rand.Rand) error {
		l := link(t, r)
		hold(l)
		during(ctx, some(r, 4*time.Second))
		if r.IntN(2) == 0 {
			l.Break(ctx)
		}
		l.Release()
		return nil
	}
}

func breakLink(ctx context.Context, t *Target, r *rand.Rand) error {
	l := link(t, r)
	for range 1 + r.IntN(3) {
		l.Break(ctx)
		during(ctx, some(r, time.Second))
	}
	return nil
}

func slowLink(ctx context.Context, t *Target, r *rand.Rand) error {
	l := link(t, r)
	l.Slow(some(r, 300*time.Millisecond))
	during(ctx, some(r, 4*time.Second))
	l.Slow(0)
	return nil
}

// These begin the names of the links of one server. Its number follows.
const (
	EtcdLink   = "etcd of server "
	AgentLink  = "agents to server "
	ServerLink = "servers to server "
)

// cutOff cuts one server off all members of etcd, for longer than its lease in most cases.
func cutOff(ctx context.Context, t *Target, r *rand.Rand) error {
	holdAll(ctx, t, silence(t, r), fmt.Sprintf("%s%d ", EtcdLink, r.IntN(len(t.Servers))))
	return nil
}

// cutFront cuts one server off all agents and all other servers. Clients and etcd still reach it.
func cutFront(ctx context.Context, t *Target, r *rand.Rand) error {
	i := r.IntN(len(t.Servers))
	holdAll(ctx, t, silence(t, r), fmt.Sprintf("%s%d", AgentLink, i), fmt.Sprintf("%s%d", ServerLink, i))
	return nil
}

// holdAll stops all data of the links whose names begin like that.
func holdAll(ctx context.Context, t *Target, d time.Duration, prefixes ...string) {
	var cut []*testlink.Link
	for _, name := range slices.Sorted(maps.Keys(t.Links)) {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			cut = append(cut, t.Links[name])
			t.Links[name].Hold()
		}
	}
	during(ctx, d)
	for _, l := range cut {
		l.Release()
	}
}
