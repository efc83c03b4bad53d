package term

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Screen is the local terminal while a remote command uses it.
type Screen struct {
	fd      int
	Restore func() // restores the terminal; may be called more than once
}

// OpenScreen prepares the terminal of in and out. With input, the command gets every key, including Ctrl-C.
func OpenScreen(in io.Reader, out io.Writer, input bool) (*Screen, error) {
	f, ok := out.(*os.File)
	if keys, isFile := in.(*os.File); input {
		f, ok = keys, isFile
	}
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, errors.New("-t needs a terminal, and the input is not one: leave -t out, as in `caractrl exec -i ...`")
	}
	s := &Screen{fd: int(f.Fd()), Restore: func() {}}
	if !input {
		return s, nil
	}
	before, err := term.MakeRaw(s.fd)
	if err != nil {
		return nil, fmt.Errorf("set the terminal up: %w", err)
	}
	s.Restore = sync.OnceFunc(func() { _ = term.Restore(s.fd, before) }) // an error cannot be handled at the end of the command
	return s, nil
}

// Size returns the size of the terminal, or nil if it is unknown.
func (s *Screen) Size() *carav1.TerminalSize {
	columns, rows, err := term.GetSize(s.fd)
	if err != nil || columns <= 0 || rows <= 0 {
		return nil
	}
	return &carav1.TerminalSize{Rows: int32(min(rows, 10000)), Columns: int32(min(columns, 10000))}
}

// Resizes calls tell with every new size until ctx ends.
func (s *Screen) Resizes(ctx context.Context, tell func(*carav1.TerminalSize)) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
			if size := s.Size(); size != nil {
				tell(size)
			}
		case <-ctx.Done():
			return
		}
	}
}
