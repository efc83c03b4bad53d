package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const gib = 1 << 30

func TestPlace(t *testing.T) {
	big := func(name string) *Candidate { return &Candidate{Name: name, CPU: 4000, Memory: 8 * gib, Subnets: 100} }
	with := func(c *Candidate, change func(*Candidate)) *Candidate { change(c); return c }
	tests := map[string]struct {
		demand Demand
		nodes  []*Candidate
		how    Strategy
		node   string
		say    string // of a project that fits nowhere
	}{
		"no nodes at all": {
			say: "there are no nodes: start cara-agent on a machine with Docker and let it join",
		},
		"each filter says how many nodes it took": {
			demand: Demand{Memory: gib},
			nodes: []*Candidate{
				with(big("a"), func(c *Candidate) { c.Unfit = NotReady }),
				with(big("b"), func(c *Candidate) { c.Unfit = NotReady }),
				with(big("c"), func(c *Candidate) { c.UsedMemory = 7*gib + 1 }),
			},
			say: "0 of 3 nodes fit: 2 NotReady, 1 insufficient memory",
		},
		"the reasons keep their order": {
			demand: Demand{CPU: 5000, Selector: map[string]string{"disk": "ssd"}},
			nodes: []*Candidate{
				with(big("a"), func(c *Candidate) { c.Unfit = Cordoned }), big("b"),
				with(big("c"), func(c *Candidate) { c.Labels = map[string]string{"disk": "ssd"} }),
				with(big("d"), func(c *Candidate) { c.Unfit = EngineDown }),
			},
			say: "0 of 4 nodes fit: 1 engine unreachable, 1 cordoned, 1 did not match the node selector, 1 insufficient cpu",
		},
		"no free network": {
			nodes: []*Candidate{with(big("a"), func(c *Candidate) { c.UsedSubnets = 100 })},
			say:   "0 of 1 nodes fit: 1 no free project network",
		},
		"the last bit of room is room": {
			demand: Demand{Memory: gib, CPU: 1000},
			nodes:  []*Candidate{with(big("a"), func(c *Candidate) { c.UsedMemory, c.UsedCPU, c.UsedSubnets = 7*gib, 3000, 99 })}, node: "a",
		},
		"what asks for nothing fits on a full node": {
			nodes: []*Candidate{with(big("a"), func(c *Candidate) { c.UsedMemory = 9 * gib })}, node: "a",
		},
		"unknown capacity is not counted": {
			demand: Demand{Memory: 64 * gib}, nodes: []*Candidate{{Name: "a"}}, node: "a",
		},
		"spread takes the least allocated": {
			demand: Demand{Memory: gib},
			nodes: []*Candidate{
				with(big("a"), func(c *Candidate) { c.UsedMemory, c.Projects = 4*gib, 1 }),
				with(big("b"), func(c *Candidate) { c.UsedMemory, c.Projects = 2*gib, 9 }),
			}, node: "b",
		},
		"then the one with the fewest projects": {
			nodes: []*Candidate{with(big("a"), func(c *Candidate) { c.Projects = 2 }), with(big("b"), func(c *Candidate) { c.Projects = 1 })}, node: "b",
		},
		"binpack takes the most allocated": {
			how: Binpack, demand: Demand{Memory: gib},
			nodes: []*Candidate{with(big("a"), func(c *Candidate) { c.UsedMemory = 4 * gib }), big("b")}, node: "a",
		},
		"a node that allows the capabilities": {
			demand: Demand{Capabilities: []string{"BPF", "NET_ADMIN"}},
			nodes: []*Candidate{
				big("a"), with(big("b"), func(c *Candidate) { c.Capabilities = []string{"NET_ADMIN"} }),
				with(big("c"), func(c *Candidate) { c.Capabilities = []string{"NET_ADMIN", "BPF"} }),
			}, node: "c",
		},
		"no node allows all capabilities": {
			demand: Demand{Capabilities: []string{"BPF", "NET_ADMIN"}},
			nodes:  []*Candidate{big("a"), with(big("b"), func(c *Candidate) { c.Capabilities = []string{"NET_ADMIN"} })},
			say:    "0 of 2 nodes fit: 2 did not allow the capabilities (cara-agent --allow-cap)",
		},
		"the node with the data, however full the others are not": {
			demand: Demand{Memory: gib, Data: []NodeData{{"b", []string{"db"}}}},
			nodes:  []*Candidate{big("a"), with(big("b"), func(c *Candidate) { c.UsedMemory = 7 * gib }), big("c")}, node: "b",
		},
		"the data is missing before anything else": {
			demand: Demand{Project: "shop", Memory: gib, Data: []NodeData{{"n1", []string{"db", "media"}}}},
			nodes: []*Candidate{
				with(big("n1"), func(c *Candidate) { c.Unfit = Cordoned }), big("n2"), with(big("n3"), func(c *Candidate) { c.Unfit = NotReady }),
			},
			say: "0 of 3 nodes fit: 2 did not have the project's data, 1 cordoned; the data is on n1 (volumes db, media)",
		},
		"the node with the data is full": {
			demand: Demand{Project: "shop", Memory: 9 * gib, Data: []NodeData{{"n1", []string{"db"}}}},
			nodes:  []*Candidate{big("n1"), big("n2")},
			say:    "0 of 2 nodes fit: 1 did not have the project's data, 1 insufficient memory; the data is on n1 (volume db)",
		},
		"the node with the data is unknown": {
			demand: Demand{Project: "shop", Data: []NodeData{{"n1", []string{"db"}}}}, nodes: []*Candidate{big("n2")},
			say: "0 of 1 nodes fit: 1 did not have the project's data; the data is on n1 (volume db), and the cluster has no node n1: " +
				"let that machine join again under this name, or give up the data and start with an empty volume (caractrl recreate volume shop.db)",
		},
		"there is data and no node": {
			demand: Demand{Project: "shop", Data: []NodeData{{"n1", []string{"db", "media"}}}},
			say: "there are no nodes: start cara-agent on a machine with Docker and let it join; the data is on n1 (volumes db, media), and the cluster has no node n1: " +
				"let that machine join again under this name, or give up the data and start with empty volumes (caractrl recreate volume shop.db, shop.media)",
		},
		"two nodes have data": {
			demand: Demand{Project: "shop", Data: []NodeData{{"n1", []string{"db"}}, {"n2", []string{"cache", "media"}}}},
			nodes:  []*Candidate{big("n1"), big("n2"), big("n3")},
			say: "0 of 3 nodes fit: 3 did not have the project's data; the data is on n1 (volume db) and n2 (volumes cache, media), but a project runs on one node: " +
				"remove the volumes of the other nodes from the manifest; their data is kept until you delete it (caractrl delete volume shop.NAME)",
		},
		"a node that offers the host volumes": {
			demand: Demand{Project: "jellyfin", HostVolumes: []string{"media", "tv"}},
			nodes: []*Candidate{
				big("a"), with(big("b"), func(c *Candidate) { c.HostVolumes = []*carav1.HostVolume{{Name: "media"}} }),
				with(big("c"), func(c *Candidate) {
					c.HostVolumes = []*carav1.HostVolume{{Name: "tv", ReadOnly: true}, {Name: "media", Projects: []string{"jelly*"}}}
				}),
			}, node: "c",
		},
		"the host volume is offered to other projects": {
			demand: Demand{Project: "shop", HostVolumes: []string{"media"}},
			nodes: []*Candidate{
				with(big("a"), func(c *Candidate) {
					c.HostVolumes = []*carav1.HostVolume{{Name: "media", Projects: []string{"jelly*"}}}
				}), big("b"),
				with(big("c"), func(c *Candidate) { c.Unfit = Draining }),
			},
			say: "0 of 3 nodes fit: 1 draining, 2 did not offer the host volumes (cara-agent --host-volume)",
		},
		"an agent that knows the project's features": {
			demand: Demand{Project: "shop", Features: []string{"files"}},
			nodes:  []*Candidate{big("a"), with(big("b"), func(c *Candidate) { c.Features = []string{"files"} })}, node: "b",
		},
		"all agents are older": {
			demand: Demand{Project: "shop", Features: []string{"files"}}, nodes: []*Candidate{big("a")},
			say: "0 of 1 nodes fit: 1 runs a cara-agent that is too old for files[].from or for variables with Secrets",
		},
		"the selector chooses": {
			demand: Demand{Selector: map[string]string{"zone": "x"}},
			nodes:  []*Candidate{big("a"), with(big("b"), func(c *Candidate) { c.Labels = map[string]string{"zone": "x"} })}, node: "b",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := Place(tt.demand, tt.nodes, tt.how)
			if v.Node != tt.node {
				t.Errorf("placed on %q, want %q", v.Node, tt.node)
			}
			if tt.say != "" && v.Explain() != tt.say {
				t.Errorf("says %q, want %q", v.Explain(), tt.say)
			}
		})
	}
}

func TestPlaceDoesNotDependOnTheOrderOfNodes(t *testing.T) {
	var nodes []*Candidate
	for i := range 20 {
		nodes = append(nodes, &Candidate{Name: fmt.Sprint("n", i), CPU: 1000, Memory: gib})
	}
	seen := map[string]bool{}
	for p := range 50 {
		d := Demand{Project: fmt.Sprint("p", p), CPU: 10}
		want := Place(d, nodes, Spread).Node
		seen[want] = true
		for range 5 {
			rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
			if got := Place(d, nodes, Spread).Node; got != want {
				t.Fatalf("%s: placed on %s, and in another order on %s", d.Project, want, got)
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("50 projects chose among equal nodes only %d of 20", len(seen))
	}
}

func TestSpreadIsEven(t *testing.T) {
	nodes := []*Candidate{}
	for i := range 7 {
		nodes = append(nodes, &Candidate{Name: fmt.Sprint("n", i), CPU: 16000, Memory: 64 * gib, Subnets: 2048})
	}
	for p := range 700 {
		v := Place(Demand{Project: fmt.Sprint(p), CPU: 50, Memory: gib / 4}, nodes, Spread)
		for _, c := range nodes {
			if c.Name == v.Node {
				c.UsedCPU, c.UsedMemory, c.Projects, c.UsedSubnets = c.UsedCPU+50, c.UsedMemory+gib/4, c.Projects+1, c.UsedSubnets+1
			}
		}
	}
	for _, c := range nodes {
		if c.Projects != 100 {
			t.Errorf("%s has %d projects, want 100", c.Name, c.Projects)
		}
	}
}

func FuzzPlace(f *testing.F) {
	f.Add(uint64(1), int64(100), int64(gib))
	f.Fuzz(func(t *testing.T, seed uint64, cpu, memory int64) {
		if cpu < 0 || memory < 0 {
			t.Skip("quantities are never negative")
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		nodes := make([]*Candidate, rng.IntN(8))
		for i := range nodes {
			nodes[i] = &Candidate{
				Name: fmt.Sprint(i), Unfit: Why(rng.IntN(int(MemoryPressure) + 1)), CPU: rng.Int64N(1 << 20), Memory: rng.Int64(),
				UsedCPU: rng.Int64N(1 << 20), UsedMemory: rng.Int64(), Subnets: rng.Int64N(4), UsedSubnets: rng.Int64N(4),
			}
		}
		var data []NodeData
		for range rng.IntN(3) {
			data = append(data, NodeData{Node: fmt.Sprint(rng.IntN(8)), Volumes: []string{"db"}})
		}
		v := Place(Demand{CPU: cpu, Memory: memory, Data: data}, nodes, []Strategy{Spread, Binpack}[rng.IntN(2)])
		lost := 0
		for _, n := range v.Lost {
			lost += n
		}
		for _, c := range nodes {
			if c.Name != v.Node {
				continue
			}
			for _, at := range data {
				if at.Node != c.Name {
					t.Errorf("placed on %s, but node %s has data", c.Name, at.Node)
				}
			}
			if c.Unfit != Fits || c.CPU > 0 && cpu > 0 && c.UsedCPU > c.CPU-cpu || c.Memory > 0 && memory > 0 && c.UsedMemory > c.Memory-memory ||
				c.Subnets > 0 && c.UsedSubnets >= c.Subnets {
				t.Errorf("placed cpu %d memory %d on %+v", cpu, memory, *c)
			}
		}
		if v.Node == "" && lost != len(nodes) {
			t.Errorf("no node, but %d of %d were lost", lost, len(nodes))
		}
	})
}

func BenchmarkPlace(b *testing.B) {
	nodes := make([]*Candidate, 1000)
	for i := range nodes {
		nodes[i] = &Candidate{Name: fmt.Sprint("node-", i), CPU: 16000, Memory: 64 * gib, Subnets: 2048, UsedCPU: int64(i * 3), Projects: int64(i % 20)}
	}
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprint("project-", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if Place(Demand{Project: names[i%len(names)], CPU: 100, Memory: gib / 8}, nodes, Spread).Node == "" {
			b.Fatal("no node")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "placements/s")
}
