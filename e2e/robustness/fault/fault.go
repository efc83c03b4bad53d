package fault

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caravanserai/cara/internal/test/testclock"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testlink"
	"github.com/caravanserai/cara/internal/test/testnet"
)

// Target is what faults can reach. One goroutine uses it.
type Target struct {
	// Servers have one cara-server each. The agents belong to the first one.
	Servers []*testcluster.Cluster
	// Links are the connections that can be cut, by a name of both ends.
	Links map[string]*testlink.Link
	// Etcd is nil for a server alone.
	Etcd *testetcd.Cluster
	// Machines are those of etcd's members.
	Machines []*testnet.Machine
	// Disk is the small file system with the data directory of the first server, or empty.
	Disk string
	// MemberDisk is the small file system with the data directory of the first member of etcd, or empty.
	MemberDisk string
	// ServerClocks and MemberClocks are the clocks of the servers and of etcd's members, if the programs were built for that.
	ServerClocks, MemberClocks []*testclock.Clock
	// Lease is how long a server may be silent before another one runs its loops; 0 for a server alone.
	Lease time.Duration
}

// Fault is one kind of fault.
type Fault struct {
	Name string
	// Possible reports whether a target has what the fault breaks.
	Possible func(t *Target) bool
	// Inject breaks something at random, and returns when it is mended.
	Inject func(ctx context.Context, t *Target, r *rand.Rand) error
}

// All returns all faults.
func All() []Fault {
	return slices.Concat(processes(), members(), packets(), links(), disks(), clocks())
}

// Chosen returns the faults that are possible, of those with the names, or of all without names.
func Chosen(t *Target, names []string) []Fault {
	return slices.DeleteFunc(All(), func(f Fault) bool { return !f.Possible(t) || len(names) > 0 && !slices.Contains(names, f.Name) })
}

// some returns a random duration up to a limit, and at least a tenth of it.
func some(r *rand.Rand, limit time.Duration) time.Duration {
	return limit/10 + time.Duration(r.Int64N(int64(limit-limit/10)))
}

// during waits for the duration of a fault.
func during(ctx context.Context, d time.Duration) {
	_ = testcluster.Pause(ctx, d) // the fault is mended also when the run ends
}

func always(*Target) bool { return true }

func hasAgents(t *Target) bool { return len(t.Servers[0].Agents) > 0 }

func agent(t *Target, r *rand.Rand) string {
	names := slices.Sorted(maps.Keys(t.Servers[0].Agents))
	return names[r.IntN(len(names))]
}

func server(t *Target, r *rand.Rand) *testcluster.Cluster { return t.Servers[r.IntN(len(t.Servers))] }

// silence returns how long a server is silent: mostly longer than its leases, so that others run its loops.
func silence(t *Target, r *rand.Rand) time.Duration {
	d := some(r, 2*time.Second)
	if t.Lease > 0 && r.IntN(4) > 0 {
		d += t.Lease + time.Second
	}
	return d
}
