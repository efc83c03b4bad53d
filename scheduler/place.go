package scheduler

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
)

// Strategy says where a project goes when it fits in several places.
type Strategy string

// Strategies. Spread takes the node with the least allocated share, Binpack the one with the most.
const (
	Spread  Strategy = "spread"
	Binpack Strategy = "binpack"
)

// Demand is what a project asks of a node.
type Demand struct {
	Project     string
	CPU, Memory int64 // thousandths of a core, bytes; 0 asks for none
	Selector    map[string]string
	// Capabilities that it adds and that not every node allows.
	Capabilities []string
}

// Candidate is a node as the scheduler counts it.
type Candidate struct {
	Name   string
	Labels map[string]string
	// Capabilities are those that it allows beside the ones that every node does.
	Capabilities []string
	// Unfit is why nothing may be placed here, whatever it asks for; Fits where it may.
	Unfit Why
	// CPU, Memory and Subnets are the capacity; one that is not known (0) is not counted.
	CPU, Memory, Subnets int64
	// UsedCPU, UsedMemory, UsedSubnets and Projects are what is placed here, reservations and all.
	UsedCPU, UsedMemory, UsedSubnets, Projects int64
}

// Why is the reason that a node was lost for a project. The order is that of the explanation.
type Why int

// Reasons why a node is not chosen. Fits means that it can be.
const (
	Fits Why = iota
	NotReady
	EngineDown
	Draining
	Cordoned
	DiskPressure
	MemoryPressure
	Selector
	Capability
	InsufficientCPU
	InsufficientMemory
	NoSubnet
	whys
)

func (w Why) String() string {
	return [whys]string{
		"fits", api.NodeNotReady, "engine unreachable", "draining", "cordoned", "disk pressure", "memory pressure",
		"did not match the node selector", "did not allow the capabilities (cara-agent --allow-cap)", "insufficient cpu", "insufficient memory", "no free project network",
	}[w]
}

// Verdict is a decision with its reasons.
type Verdict struct {
	// Node that was chosen; empty where none fits.
	Node string
	// Nodes is how many there are; Lost how many of them each filter took.
	Nodes int
	Lost  [whys]int
}

// Explain says why there is no node, filter by filter: `0 of 3 nodes fit: 2 NotReady, 1 insufficient memory`.
func (v Verdict) Explain() string {
	if v.Nodes == 0 {
		return "there are no nodes: start cara-agent on a machine with Docker and let it join"
	}
	var parts []string
	for why, n := range v.Lost {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, Why(why)))
		}
	}
	return fmt.Sprintf("0 of %d nodes fit: %s", v.Nodes, strings.Join(parts, ", "))
}

// Place chooses a node. It is a pure function: the same demand and candidates, in any order, have the same answer.
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
	}
	return v
}

// filter is all filters in order; each looks at the node and the demand and at nothing else.
func filter(d *Demand, c *Candidate) Why {
	if c.Unfit != Fits {
		return c.Unfit
	}
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
	switch {
	case exceeds(c.UsedCPU, d.CPU, c.CPU):
		return InsufficientCPU
	case exceeds(c.UsedMemory, d.Memory, c.Memory):
		return InsufficientMemory
	case exceeds(c.UsedSubnets, 1, c.Subnets):
		return NoSubnet
	}
	return Fits
}

// exceeds does not add, so that no quantity overflows it.
func exceeds(used, more, capacity int64) bool {
	return capacity > 0 && more > 0 && used > capacity-more
}

// share is the part of the node that would be allocated with the demand on it: the fuller of cpu and memory.
func share(d *Demand, c *Candidate) float64 {
	part := func(used, more, capacity int64) float64 {
		if capacity <= 0 {
			return 0
		}
		return (float64(used) + float64(more)) / float64(capacity)
	}
	return max(part(c.UsedCPU, d.CPU, c.CPU), part(c.UsedMemory, d.Memory, c.Memory))
}

// before breaks a tie: by the number of projects, then by a hash that is another order for every project, then by name.
func before(project string, a, b *Candidate, how Strategy) bool {
	if a.Projects != b.Projects {
		return (a.Projects < b.Projects) == (how != Binpack)
	}
	ha, hb := tie(project, a.Name), tie(project, b.Name)
	if ha != hb {
		return ha < hb
	}
	return a.Name < b.Name
}

func tie(project, node string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(project)) // a hash.Hash never returns an error
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(node))
	return h.Sum64()
}
