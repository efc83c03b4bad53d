package probe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// command runs the command of one container's exec check. Docker cannot end a command, so a hanging command would remain
// after its check was given up, and each further check would add another. Therefore:
//
//   - A command that does not end in time is ended like an exec whose client left: it gets a hangup signal, and is killed
//     later.
//   - While it still runs, no other command starts. Each check during that time fails.
//
// If the agent cannot signal the engine's processes, at most one command per container hangs.
type command struct {
	engine    engine.Streams
	container string
	args      []string
	over      chan struct{} // closed once the last command is gone; nil before the first
}

// run runs the command once. ctx ends with the container or the agent. The timeout applies to the command, not to ending it
// afterwards.
func (c *command) run(ctx context.Context, timeout time.Duration) error {
	if !c.idle() {
		return fmt.Errorf("%q still runs since an earlier check and is being ended", c)
	}
	over, result := make(chan struct{}), make(chan error, 1)
	c.over = over
	bounded, cancel := context.WithTimeout(ctx, timeout)
	go func() {
		defer close(over)
		defer cancel()
		result <- c.once(ctx, bounded)
	}()
	// Wait here and not in once, because ending a command may take longer than its check.
	select {
	case err := <-result:
		return err
	case <-bounded.Done():
		select {
		case err := <-result:
			return err
		default:
			return fmt.Errorf("%q did not end within %s", c, timeout)
		}
	}
}

// once starts a command, waits for its end and ensures that it is gone. The timeout does not apply to the start: the engine
// might have started a command that nobody would end.
func (c *command) once(ctx, bounded context.Context) error {
	process, err := c.engine.Start(ctx, c.container, engine.Command{Args: c.args})
	if err != nil {
		return err
	}
	defer process.End(ctx)
	var output strings.Builder
	code, err := process.Wait(bounded, func(data []byte, _ bool) error {
		output.Write(data[:min(len(data), maxCheckOutput-output.Len())])
		return nil
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("%q exited with code %d: %s", c, code, output.String())
	}
	return err
}

// maxCheckOutput is how many bytes of a command's output are kept. The prober removes values of Secrets and control
// characters.
const maxCheckOutput = 4096

// idle reports whether no command of an earlier check is left.
func (c *command) idle() bool {
	if c.over == nil {
		return true
	}
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

func (c *command) wait() {
	if c.over != nil {
		<-c.over
	}
}

func (c *command) String() string { return strings.Join(c.args, " ") }
