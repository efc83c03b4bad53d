package scheduler

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Strategy selects among several nodes that fit.
type Strategy string

// Spread takes the node with the smallest allocated share, Binpack the node with the largest.
const (
	Spread  Strategy = "spread"
	Binpack Strategy = "binpack"
)

// Demand is what a project needs from a node.
type Demand struct {
	Project     string
	CPU, Memory int64 // millicores, bytes; 0 requests nothing
	Selector    map[string]string
	// Capabilities that the project adds and that not every node allows.
	Capabilities []string
	// Data is where the project's data is, sorted by node. The project runs only on a node that has all of it.
	Data []NodeData
	// Receive is true if the project's data is copied to the node, Restore if it is restored there from a backup.
	Receive, Restore bool
	// Idle is true if the project does not run on the node, so that it needs no network.
	Idle bool
	// Backup is true if the project has backups.
	Backup bool
	// HostVolumes are the names of the host volumes that the project mounts.
	HostVolumes []string
	// Features that the node's agent must know.
	Features []string
}

// Candidate is the scheduler's view of a node.
type Candidate struct {
	Name   string
	Labels map[string]string
	// Capabilities that the node allows in addition to those that every node allows.
	Capabilities []string
	// HostVolumes that the node offers.
	HostVolumes []*carav1.HostVolume
	// Features that the node's agent knows.
	Features []string
	// Receives is true if the node can receive the data of a project from another node.
	Receives bool
	// Restores is true if the node can restore the data of a project from a backup.
	Restores bool
	// Unfit is why the node takes no new projects at all. Fits if it takes them.
	Unfit Why
	// CPU, Memory and Subnets are the capacity. 0 means unknown and sets no limit.
	CPU, Memory, Subnets int64
	// UsedCPU, UsedMemory, UsedSubnets and Projects are what is placed here, including reservations.
	UsedCPU, UsedMemory, UsedSubnets, Projects int64
}

// Why is the reason that a node was rejected. Explain lists the reasons in this order.
type Why int

// Reasons to reject a node. Fits means that it is not rejected.
const (
	Fits Why = iota
	NoData
	NotReady
	EngineDown
	Draining
	Cordoned
	DiskPressure
	MemoryPressure
	Selector
	Capability
	HostVolume
	OldAgent
	NoTransfer
	NoRestic
	InsufficientCPU
	InsufficientMemory
	NoSubnet
	whys
)

func (w Why) String() string {
	return [whys]string{
		"fits", "did not have the project's data", api.NodeNotReady, "engine unreachable", "draining", "cordoned", "disk pressure", "memory pressure",
		"did not match the node selector", "did not allow the capabilities (cara-agent --allow-cap)",
		"did not offer the host volumes (cara-agent --host-volume)", "runs a cara-agent that is too old for files[].from or for variables with Secrets",
		"cannot receive data (needs rsync and cara-agent --ingress-address)", "cannot read backups (needs restic)", "insufficient cpu", "insufficient memory", "no free project network",
	}[w]
}

// Verdict is a placement with its reasons.
type Verdict struct {
	// Node is the chosen node. Empty if none fits.
	Node string
	// Nodes is the number of nodes. Lost is how many of them were rejected for each reason.
	Nodes int
	Lost  [whys]int
	// data says where the data of a project is that fits on no node.
	data string
}

// Explain returns why no node fits: `0 of 3 nodes fit: 2 NotReady, 1 insufficient memory`. If the project has data, it also
// says where: `0 of 3 nodes fit: 2 did not have the project's data, 1 cordoned; the data is on n1 (volumes db, media)`.
func (v Verdict) Explain() string {
	if v.Nodes == 0 {
		return "there are no nodes: start cara-agent on a machine with Docker and let it join" + v.data
	}
	var parts []string
	for why, n := range v.Lost {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, Why(why)))
		}
	}
	return fmt.Sprintf("0 of %d nodes fit: %s%s", v.Nodes, strings.Join(parts, ", "), v.data)
}

// Place chooses a node. It is a pure function, and the order of nodes does not matter.
func Place(d Demand, nodes []*Candidate, how Strategy) Verdict {
	v := Verdict{Nodes: len(nodes)}
	var best *Candidate
	var bestScore float64
	for _, c := range nodes {
		if why := filter(&d, c); why != Fits {
			v.Lost[why]++
			continue
		}
		s := share(&d, c)
		if how == Binpack {
			s = -s
		}
		if best == nil || s < bestScore || s == bestScore && before(d.Project, c, best, how) {
			best, bestScore = c, s
		}
	}
	if best != nil {
		v.Node = best.Name
	} else {
		v.data = d.where(nodes)
	}
	return v
}

// filter runs all filters in order. Each filter depends only on the node and the demand. The data comes first: without it,
// nothing else about the node matters.
func filter(d *Demand, c *Candidate) Why {
	if !d.dataOn(c.Name) {
		return NoData
	}
	if c.Unfit != Fits {
		return c.Unfit
	}
	if d.asks() {
		if why := d.missing(c); why != Fits {
			return why
		}
	}
	switch {
	case d.Receive && !c.Receives:
		return NoTransfer
	case d.Restore && !c.Restores:
		return NoRestic
	case exceeds(c.UsedCPU, d.CPU, c.CPU):
		return InsufficientCPU
	case exceeds(c.UsedMemory, d.Memory, c.Memory):
		return InsufficientMemory
	case !d.Idle && exceeds(c.UsedSubnets, 1, c.Subnets):
		return NoSubnet
	}
	return Fits
}

// asks reports whether the project asks for anything by name. Most projects do not, and Place filters every node.
func (d *Demand) asks() bool {
	return len(d.Selector)+len(d.Capabilities)+len(d.HostVolumes)+len(d.Features) > 0
}

// missing returns what the project asks for by name and the node does not have.
func (d *Demand) missing(c *Candidate) Why {
	for k, v := range d.Selector {
		if have, ok := c.Labels[k]; !ok || have != v {
			return Selector
		}
	}
	for _, name := range d.Capabilities {
		if !slices.Contains(c.Capabilities, name) {
			return Capability
		}
	}
	for _, name := range d.HostVolumes {
		if api.OfferedTo(c.HostVolumes, name, d.Project) == nil {
			return HostVolume
		}
	}
	for _, name := range d.Features {
		if !slices.Contains(c.Features, name) {
			return OldAgent
		}
	}
	return Fits
}

// exceeds subtracts instead of adding, so that it cannot overflow.
func exceeds(used, more, capacity int64) bool {
	return capacity > 0 && more > 0 && used > capacity-more
}

// share is the allocated part of the node with the demand on it: the larger of the CPU and memory shares.
func share(d *Demand, c *Candidate) float64 {
	cpu, memory := part(c.UsedCPU, d.CPU, c.CPU), part(c.UsedMemory, d.Memory, c.Memory)
	if cpu > memory {
		return cpu // not max: it also looks for NaN, which part never returns
	}
	return memory
}

func part(used, more, capacity int64) float64 {
	if capacity <= 0 {
		return 0
	}
	return (float64(used) + float64(more)) / float64(capacity)
}

// before breaks a tie: by the number of projects, then by a hash that orders the nodes differently for each project, then by
// name.
func before(project string, a, b *Candidate, how Strategy) bool {
	if a.Projects != b.Projects {
		return (a.Projects < b.Projects) == (how != Binpack)
	}
	return cmp.Or(cmp.Compare(tie(project, a.Name), tie(project, b.Name)), cmp.Compare(a.Name, b.Name)) < 0
}

func tie(project, node string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(project)) // a hash.Hash never returns an error
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(node))
	return h.Sum64()
}
