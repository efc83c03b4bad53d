package fault

import (
	"context"
	"math/rand/v2"
	"time"
)

func processes() []Fault {
	return []Fault{
		{"kill server", always, killServer},
		{"stop server", always, stopServer},
		{"pause server", always, pauseServer},
		{"kill agent", hasAgents, killAgent},
		{"pause agent", hasAgents, pauseAgent},
	}
}

func killServer(ctx context.Context, t *Target, r *rand.Rand) error {
	s := server(t, r)
	if err := s.Server.Kill(); err != nil {
		return err
	}
	during(ctx, some(r, time.Second))
	return s.StartBeside(ctx)
}

func stopServer(ctx context.Context, t *Target, r *rand.Rand) error {
	s := server(t, r)
	if err := s.Server.Stop(ctx); err != nil {
		return err
	}
	return s.StartBeside(ctx)
}

// pauseServer stops the process with all that it was about to do. With a lease, it is paused for longer than that in most
// cases, so that others run its loops when it continues.
func pauseServer(ctx context.Context, t *Target, r *rand.Rand) error {
	s := server(t, r)
	if err := s.Server.Pause(); err != nil {
		return err
	}
	during(ctx, silence(t, r))
	return s.Server.Resume()
}

func killAgent(ctx context.Context, t *Target, r *rand.Rand) error {
	name := agent(t, r)
	if err := t.Servers[0].Agents[name].Kill(); err != nil {
		return err
	}
	during(ctx, some(r, time.Second))
	return t.Servers[0].RestartAgent(name)
}

// pauseAgent pauses an agent, sometimes for so long that its node is NotReady.
func pauseAgent(ctx context.Context, t *Target, r *rand.Rand) error {
	name := agent(t, r)
	if err := t.Servers[0].Agents[name].Pause(); err != nil {
		return err
	}
	during(ctx, some(r, 4*time.Second))
	return t.Servers[0].Agents[name].Resume()
}
