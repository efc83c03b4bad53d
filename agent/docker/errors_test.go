package docker

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/caravanserai/cara/agent/engine"
)

// TestWrap: what an error of the engine means for the agent.
func TestWrap(t *testing.T) {
	other := errors.New("can not get logs from container which is dead or marked for removal")
	for name, c := range map[string]struct {
		err, want error
		gone      bool
	}{
		"no such container":              {errdefs.ErrNotFound, engine.ErrNotFound, true},
		"the container is being removed": {fmt.Errorf("%w: %w", other, errdefs.ErrConflict), engine.ErrNotFound, true},
		"another conflict":               {fmt.Errorf("the container is running: %w", errdefs.ErrConflict), errdefs.ErrConflict, false},
		"an invalid argument":            {errdefs.ErrInvalidArgument, engine.ErrInvalid, false},
		"the engine's disk has no room":  {errors.New("write /x: no space left on device"), engine.ErrNoRoom, false},
		"the same words, no conflict":    {other, other, false},
	} {
		got := wrap(c.err, "read logs")
		if !errors.Is(got, c.want) || errors.Is(got, engine.ErrNotFound) != c.gone {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
