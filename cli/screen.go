package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// screen is the terminal of whoever runs caractrl, on loan to a command elsewhere.
type screen struct {
	fd      int
	restore func() // gives it back; more than once is no harm
}

// openScreen takes the terminal: with input, every key goes to the command, Ctrl-C too.
func (a *app) openScreen(input bool) (*screen, error) {
	f, ok := a.Out.(*os.File)
	if in, isFile := a.In.(*os.File); input {
		f, ok = in, isFile
	}
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, errors.New("-t needs a terminal, and this is none: leave it out, as in `caractrl exec -i ...`")
	}
	s := &screen{fd: int(f.Fd()), restore: func() {}}
	if !input {
		return s, nil
	}
	before, err := term.MakeRaw(s.fd)
	if err != nil {
		return nil, fmt.Errorf("set the terminal up: %w", err)
	}
	s.restore = sync.OnceFunc(func() { _ = term.Restore(s.fd, before) }) // on the way out, with nobody left to tell
	return s, nil
}

// size is nil where the terminal does not say.
func (s *screen) size() *carav1.TerminalSize {
	columns, rows, err := term.GetSize(s.fd)
	if err != nil || columns <= 0 || rows <= 0 {
		return nil
	}
	return &carav1.TerminalSize{Rows: int32(min(rows, 10000)), Columns: int32(min(columns, 10000))}
}

// resizes tells of every new size until ctx ends.
func (s *screen) resizes(ctx context.Context, tell func(*carav1.TerminalSize)) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
			if size := s.size(); size != nil {
				tell(size)
			}
		case <-ctx.Done():
			return
		}
	}
}
