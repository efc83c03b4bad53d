package validate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// Sampler looks at the engines while a cluster is broken. It remembers all data, and looks for second copies.
type Sampler struct {
	Cluster *testcluster.Cluster
	Engines map[string]string // DOCKER_HOST by node
	// Copies makes a second running copy of a project a failure. Do not set it if nodes are cut off for longer than they have
	// time: then a second copy is right.
	Copies bool

	data   map[string]string // creation time by host and volume
	looks  int
	copies problems
}

// Run looks until ctx ends.
func (s *Sampler) Run(ctx context.Context) error {
	s.data = map[string]string{}
	for ctx.Err() == nil {
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		s.looks++
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// look lists every engine, and the first ones a second time: what ran before and after another copy was seen ran beside it.
func (s *Sampler) look(ctx context.Context) error {
	nodes := slices.Sorted(maps.Keys(s.Engines))
	var before []map[string]string
	for _, node := range nodes {
		running, err := s.running(ctx, node)
		if err != nil {
			return err
		}
		before = append(before, running)
	}
	for i, node := range nodes[:max(0, len(nodes)-1)] {
		after, err := s.running(ctx, node)
		if err != nil {
			return err
		}
		for project, id := range before[i] {
			for j := i + 1; j < len(nodes); j++ {
				if other := before[j][project]; other != "" && after[project] == id && s.Copies {
					s.copies.add("%s ran on %s (%.12s) and on %s (%.12s) at %s", project, node, id, nodes[j], other, time.Now().Format(time.TimeOnly))
				}
			}
		}
	}
	return nil
}

// running returns a running container of each project, and remembers the data.
func (s *Sampler) running(ctx context.Context, node string) (map[string]string, error) {
	held, err := s.Cluster.Held(ctx, s.Engines[node], "")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, c := range held.Containers {
		if string(c.State) == "running" && c.Labels[api.LabelNode] == node {
			out[c.Labels[api.LabelProject]] = c.ID
		}
	}
	for _, v := range held.Volumes {
		if v.Labels[api.LabelVolumeUID] != "" && v.Labels[api.LabelNode] == node {
			s.data[node+" "+v.Name] = v.CreatedAt
		}
	}
	return out, nil
}

// Problems returns what is wrong at the end: data that is gone or was made again, and second copies. Nobody deletes data in a
// run.
func (s *Sampler) Problems(ctx context.Context) ([]string, error) {
	seen := maps.Clone(s.data)
	clear(s.data)
	for node := range s.Engines {
		if _, err := s.running(ctx, node); err != nil {
			return nil, err
		}
	}
	p := &problems{}
	for _, volume := range slices.Sorted(maps.Keys(seen)) {
		if now := s.data[volume]; now != seen[volume] {
			p.add("the data of %s was made at %s, and is now from %q", volume, seen[volume], now)
		}
	}
	return append(p.all(), s.copies.all()...), nil
}

// String says how much was seen.
func (s *Sampler) String() string {
	return fmt.Sprintf("%d looks at the engines, %d volumes", s.looks, len(s.data))
}
