package probe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// command runs the command of one container's exec check. Docker cannot end a command, so one that hangs would stay when its check is
// given up, and each further check would add another. Therefore:
//
//   - A command that does not end in time is ended like an exec whose caller has gone: it is hung up on, and killed after a while.
//   - While it is still there, no other is begun. Each check that falls into that time fails.
//
// Where the agent cannot reach the engine's processes, there is one hanging command for each container at most.
type command struct {
	engine    engine.Streams
	container string
	args      []string
	over      chan struct{} // closed once the last command is gone; nil before the first
}

// run runs the command once. ctx ends with the container or the agent; the command, not its end, has to fit in the time-out.
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
	// The answer is waited for here and not in once: ending a command takes longer than its check may.
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

// once starts a command, waits for its end and makes sure that it is gone. Starting it is not cut short by the time-out: the engine may have
// started what nobody would know of then.
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

// maxCheckOutput is what is kept of a command's output, in bytes. The prober takes values of Secrets and control characters out of it.
const maxCheckOutput = 4096

// idle tells whether no command of an earlier check is left.
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

// wait waits until no command is left.
func (c *command) wait() {
	if c.over != nil {
		<-c.over
	}
}

func (c *command) String() string { return strings.Join(c.args, " ") }
