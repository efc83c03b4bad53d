package scenario

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testclock"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

const (
	clients  = 8
	claimers = 8 // with several servers
	keys     = 8
	hosts    = 3
	watchers = 3
	// patience is how long a cluster may need to recover. It only ends a run that hangs.
	patience = 4 * time.Minute
)

// Scenario is one kind of cluster.
type Scenario struct {
	Name string
	// Members is how many members etcd has; 0 is a server alone on Pebble.
	Members int
	// Servers is how many servers run on etcd.
	Servers int
	// Nodes is how many nodes there are. They share an engine, where a project's names can exist once: a second copy fails.
	Nodes int
	// SmallDisk puts the data of the first server on a file system that faults fill.
	SmallDisk bool
}

// All returns the scenarios.
func All() []Scenario {
	return []Scenario{
		{Name: "alone", Nodes: 1},
		{Name: "disk", SmallDisk: true},
		{Name: "etcd", Members: 3, Servers: 3, Nodes: 2},
		{Name: "move", Nodes: 2},
	}
}

// Options are what a caller chooses.
type Options struct {
	Seed   uint64
	Length time.Duration // of the traffic
	// Bin has the programs.
	Bin string
	// Clocks says that Bin was built with clocks that faults step.
	Clocks bool
	// Faults are the names of the faults to inject; none are all.
	Faults []string
	// Report gets a report of a failed run; empty is the directory for temporary files.
	Report string
}

// lease is what a server's lease in etcd lasts.
const lease = 6 * time.Second

// servers starts what the scenario runs on, without agents.
func (r *run) servers(t *testing.T) {
	t.Helper()
	testneed.NotShort(t)
	var flags []string
	if r.Members > 0 {
		r.members(t)
	}
	for i := range max(1, r.Servers) {
		dir := t.TempDir()
		if i == 0 && r.SmallDisk {
			r.target.Disk = smallDisk(t, filepath.Join(dir, "server"), "64m")
		}
		if r.Members > 0 {
			flags = r.etcdFlags(t, i)
		}
		cfg := testcluster.Config{Dir: dir, Bin: r.options.Bin, ServerFlags: flags}
		if r.options.Clocks {
			clock := r.clock(t)
			r.target.ServerClocks, cfg.ServerEnv = append(r.target.ServerClocks, clock), []string{clock.Env()}
		}
		c, err := testcluster.New(cfg)
		r.must(t, err)
		if r.Members > 0 {
			c.ServerFlags = append(c.ServerFlags, "--advertise", r.front(t, i, c.Address()))
		}
		r.target.Servers = append(r.target.Servers, c)
		r.must(t, c.StartBeside(t.Context()))
	}
	r.first = r.target.Servers[0]
}

// clock makes a clock that faults step.
func (r *run) clock(t *testing.T) *testclock.Clock {
	t.Helper()
	clock, err := testclock.New(filepath.Join(t.TempDir(), "clock"))
	r.must(t, err)
	return clock
}
