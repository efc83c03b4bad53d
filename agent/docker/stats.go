package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/agent/engine"
)

// Stats implements engine.Streams.
func (e *streams) Stats(ctx context.Context, id string, follow bool, emit func(engine.ContainerUsage)) error {
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	if !follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.cfg.WorkTimeout)
		defer cancel()
	}
	answer, err := docker.ContainerStats(ctx, id, follow)
	if err != nil {
		return wrap(err, "measure container %.12s", id)
	}
	defer answer.Body.Close()
	for decoder := json.NewDecoder(answer.Body); ; {
		var s container.StatsResponse
		err := decoder.Decode(&s)
		switch {
		case ctx.Err() != nil:
			return wrap(ctx.Err(), "measure container %.12s", id)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return wrap(err, "measure container %.12s", id)
		case s.PreRead.IsZero() || !s.Read.After(s.PreRead):
			continue // the first sample has no preceding one, and a stopped container has no figures
		}
		emit(usageOf(&s))
	}
}

func usageOf(s *container.StatsResponse) engine.ContainerUsage {
	u := engine.ContainerUsage{
		MemoryLimit: int64(s.MemoryStats.Limit), PIDs: int64(s.PidsStats.Current),
		Memory: int64(s.MemoryStats.Usage - droppable(s.MemoryStats)), CPUTime: time.Duration(s.CPUStats.CPUUsage.TotalUsage),
	}
	if now, before := s.CPUStats.CPUUsage.TotalUsage, s.PreCPUStats.CPUUsage.TotalUsage; now > before {
		u.CPUMillis = int64(float64(now-before) / float64(s.Read.Sub(s.PreRead)) * 1000)
	}
	for _, n := range s.Networks {
		u.Received += int64(n.RxBytes)
		u.Sent += int64(n.TxBytes)
	}
	return u
}

// droppable returns the page cache that the kernel reclaims first. Its name depends on the version of control groups.
func droppable(m container.MemoryStats) uint64 {
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[name]; ok {
			return min(v, m.Usage)
		}
	}
	return 0
}
