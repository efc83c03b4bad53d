package enginetest

import (
	"testing"

	"github.com/caravanserai/cara/agent/engine"
)

// paused: a running container can be paused, twice without an error, and resumed; another one cannot.
func paused(t *testing.T, s *suite) {
	s.network(t)
	id := s.create(t, "-after", "1h")
	if err := s.Engine.PauseContainer(t.Context(), id); err == nil {
		t.Error("a container that does not run was paused")
	}
	must(t, s.Engine.StartContainer(t.Context(), id))
	for range 2 {
		must(t, s.Engine.PauseContainer(t.Context(), id))
	}
	if c := s.inspect(t, id); c.State != engine.StatePaused {
		t.Errorf("paused: %+v", c)
	}
	must(t, s.Engine.UnpauseContainer(t.Context(), id))
	if c := s.inspect(t, id); c.State != engine.StateRunning {
		t.Errorf("resumed: %+v", c)
	}
}
