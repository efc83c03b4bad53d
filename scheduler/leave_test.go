package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLeave(t *testing.T) {
	resident := func(name string, memory int64, running bool) Resident {
		return Resident{Demand: Demand{Project: name, Memory: memory}, Running: running}
	}
	draining := &Candidate{Name: "n1", Unfit: Draining}
	n2 := &Candidate{Name: "n2", Memory: 4 * gib}
	tests := map[string]struct {
		residents          []Resident
		underway, parallel int
		nodes              []*Candidate
		want               []Departure
	}{
		"nobody is there": {nodes: []*Candidate{draining, n2}},
		"one at a time, by name": {
			residents: []Resident{resident("b", 0, true), resident("a", 0, true)},
			nodes:     []*Candidate{draining, n2}, want: []Departure{{Project: "a", Node: "n2"}},
		},
		"what does not run goes last": {
			residents: []Resident{resident("a", 0, false), resident("b", 0, true)},
			nodes:     []*Candidate{draining, n2}, want: []Departure{{Project: "b", Node: "n2"}},
		},
		"one on its way holds the next": {
			residents: []Resident{resident("a", 0, true)}, underway: 1, parallel: 1, nodes: []*Candidate{draining, n2},
		},
		"more on their way than asked for": {
			residents: []Resident{resident("a", 0, true)}, underway: 3, parallel: 2, nodes: []*Candidate{draining, n2},
		},
		"several at a time": {
			residents: []Resident{resident("a", 0, true), resident("b", 0, true), resident("c", 0, true)}, underway: 1, parallel: 3,
			nodes: []*Candidate{draining, n2}, want: []Departure{{Project: "a", Node: "n2"}, {Project: "b", Node: "n2"}},
		},
		"what fits nowhere stays and holds nobody up": {
			residents: []Resident{resident("a", 5*gib, true), resident("b", gib, true)},
			nodes:     []*Candidate{draining, n2},
			want: []Departure{
				{Project: "a", Why: "0 of 2 nodes fit: 1 draining, 1 insufficient memory"}, {Project: "b", Node: "n2"},
			},
		},
		"the first to go takes the room of the next": {
			residents: []Resident{resident("a", 3*gib, true), resident("b", 3*gib, true)}, parallel: 2,
			nodes: []*Candidate{draining, n2},
			want: []Departure{
				{Project: "a", Node: "n2"}, {Project: "b", Why: "0 of 2 nodes fit: 1 draining, 1 insufficient memory"},
			},
		},
		"no other node": {
			residents: []Resident{resident("a", 0, true)}, nodes: []*Candidate{draining},
			want: []Departure{{Project: "a", Why: "0 of 1 nodes fit: 1 draining"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Leave(tt.residents, tt.underway, tt.parallel, tt.nodes, Spread)); diff != "" {
				t.Error(diff)
			}
			if n2.UsedMemory != 0 || n2.Projects != 0 {
				t.Fatal("it changed what it was given")
			}
		})
	}
}

func FuzzLeave(f *testing.F) {
	f.Add(uint64(1), 1, 1)
	f.Fuzz(func(t *testing.T, seed uint64, underway, parallel int) {
		if underway < 0 || parallel < 0 {
			t.Skip("counts are never negative")
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		nodes := []*Candidate{{Name: "from", Unfit: Draining}}
		for i := range rng.IntN(5) {
			nodes = append(nodes, &Candidate{Name: fmt.Sprint(i), Memory: 1 + rng.Int64N(100), UsedMemory: rng.Int64N(50), Subnets: rng.Int64N(4)})
		}
		residents := make([]Resident, rng.IntN(20))
		for i := range residents {
			residents[i] = Resident{Demand: Demand{Project: fmt.Sprint("p", i), Memory: rng.Int64N(60)}, Running: rng.IntN(2) == 0}
		}
		used, projects, went := map[string]int64{}, map[string]int64{}, 0
		for _, d := range Leave(residents, underway, parallel, nodes, Spread) {
			if (d.Node == "") == (d.Why == "") || d.Node == "from" {
				t.Fatalf("odd departure %+v", d)
			}
			if d.Node == "" {
				continue
			}
			went++
			projects[d.Node]++
			for _, r := range residents {
				if r.Project == d.Project {
					used[d.Node] += r.Memory
				}
			}
		}
		if went > max(0, max(1, parallel)-underway) {
			t.Errorf("%d go, with %d underway of %d", went, underway, parallel)
		}
		for _, c := range nodes {
			if more := used[c.Name]; more > 0 && c.UsedMemory+more > c.Memory || c.Subnets > 0 && projects[c.Name] > c.Subnets {
				t.Errorf("%s of %d with %d used and %d networks gets %d and %d", c.Name, c.Memory, c.UsedMemory, c.Subnets, more, projects[c.Name])
			}
		}
	})
}
