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

// Sampler looks at the engines while a cluster is broken, and remembers all data.
type Sampler struct {
	Cluster *testcluster.Cluster
	Engines map[string]string // DOCKER_HOST by node

	data  map[string]string // creation time by node and volume
	looks int
}

// Run looks until ctx ends.
func (s *Sampler) Run(ctx context.Context) error {
	s.data = map[string]string{}
	for ctx.Err() == nil {
		if err := s.look(ctx, s.data); err != nil && ctx.Err() == nil {
			return err
		}
		s.looks++
		_ = testcluster.Pause(ctx, 100*time.Millisecond) // the loop ends with ctx
	}
	return nil
}

// look adds the data that the engines have now.
func (s *Sampler) look(ctx context.Context, data map[string]string) error {
	for node, host := range s.Engines {
		held, err := s.Cluster.Held(ctx, host, "")
		if err != nil {
			return err
		}
		for _, v := range held.Volumes {
			if v.Labels[api.LabelVolumeUID] != "" && v.Labels[api.LabelNode] == node {
				data[node+" "+v.Name] = v.CreatedAt
			}
		}
	}
	return nil
}

// Problems returns what is wrong at the end. Nobody deletes data in a run.
func (s *Sampler) Problems(ctx context.Context) ([]string, error) {
	now := map[string]string{}
	if err := s.look(ctx, now); err != nil {
		return nil, err
	}
	return lost(s.data, now), nil
}

// lost finds data that is gone or was made again.
func lost(seen, now map[string]string) []string {
	p := &problems{}
	for _, volume := range slices.Sorted(maps.Keys(seen)) {
		if now[volume] != seen[volume] {
			p.add("the data of %s was made at %s, and is now from %q", volume, seen[volume], now[volume])
		}
	}
	return p.all()
}

// String says how much was seen.
func (s *Sampler) String() string {
	return fmt.Sprintf("%d looks at the engines, %d volumes", s.looks, len(s.data))
}
