package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/caravanserai/cara/agent/confine"
)

// Sender copies one volume of this machine to another node. Its operations run one at a time.
type Sender struct {
	// Dial connects to the other node's agent, which it has verified.
	Dial func(ctx context.Context) (net.Conn, error)
	// UID of the copy, and the node that receives it.
	UID, Node string
	// Dir is the directory with the volume's data.
	Dir string
	// Cache of the original's hashes.
	Cache *Cache
}

// Pass describes one copy.
type Pass struct {
	// Running is true if the project runs meanwhile. Then files may change and disappear.
	Running bool
	// Checksum makes rsync compare the content of all files, also of those whose size and time are the same.
	Checksum bool
	// Progress is called about once a second. Optional.
	Progress func(Progress)
}

// errNoData means that this agent cannot read the volume.
func errNoData(dir string, err error) error {
	return final("this agent cannot read the volume's directory %s: it must run as root on the machine of the Docker engine, and not "+
		"in a container: %w", dir, err)
}

// Copy copies what differs, as far as rsync can see that from sizes and times, and deletes what the original does not have.
func (s *Sender) Copy(ctx context.Context, pass Pass) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	total, need, err := measure(ctx, s.Dir)
	if err != nil {
		return err
	}
	conn, err := s.ask(ctx, &request{Operation: opCopy, UID: s.UID, Need: need})
	if err != nil {
		return err
	}
	defer conn.Close()
	tell := func(done, files int64) {
		if pass.Progress != nil {
			p := total
			p.Bytes, p.Files = min(done, total.TotalBytes), min(files, total.TotalFiles)
			pass.Progress(p)
		}
	}
	// Containers change the directory meanwhile. rsync must not follow them to other files of the node.
	cmd, err := confined(ctx, confine.Access{Read: []string{s.Dir}}, "rsync", sendArgs(s.Dir, []string{confine.Self, PipeCommand}, pass.Checksum)...)
	if err != nil {
		return err
	}
	code, messages, err := rsync(ctx, conn, cmd, tell)
	if err != nil {
		return fmt.Errorf("copy the volume to node %s: %w", s.Node, err)
	}
	return s.explain(ctx, outcome(code, messages, pass.Running), need)
}

// explain wraps the error of a pass. If the target has no room, it says how much is free there.
func (s *Sender) explain(ctx context.Context, err error, need int64) error {
	if errors.Is(err, errNoSpace) {
		_, why := s.ask(ctx, &request{Operation: opCopy, UID: s.UID, Need: max(need, 1) << 20}) // it answers how much is free
		if IsFinal(why) {
			return why
		}
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("copy the volume to node %s: %w", s.Node, err) // it stays final
}

// ask opens a connection and sends a request. It returns the connection after a reply without an error.
func (s *Sender) ask(ctx context.Context, r *request) (net.Conn, error) {
	conn, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends its pending reads and writes
	defer stop()
	var answer reply
	if err = writeMessage(conn, r); err == nil {
		err = readMessage(conn, &answer)
	}
	if err != nil {
		err = fmt.Errorf("ask the agent of node %s: %w", s.Node, err)
	} else {
		err = answer.err(s.Node)
	}
	if err != nil {
		return nil, errors.Join(err, ctx.Err(), ignoreClosed(conn.Close()))
	}
	return conn, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// rsync runs a command of rsync over a connection to the other side's rsync. It returns the exit code and the error output.
func rsync(ctx context.Context, conn net.Conn, cmd *exec.Cmd, tell func(done, files int64)) (code int, messages string, err error) {
	own, child, err := socketPair()
	if err != nil {
		return 0, "", err
	}
	said := &firstMessages{}
	cmd.ExtraFiles, cmd.Stderr = []*os.File{child}, &lines{do: said.line}
	cmd.Stdout = &lines{do: func(line []byte) {
		if done, files, ok := parseProgress(line); ok {
			tell(done, files)
			return
		}
		said.line(line) // such as a refusal of the other side
	}}
	read := make(chan struct{})
	close(read) // cmd reads the output itself
	process, err := start(cmd, read)
	if err := errors.Join(err, child.Close()); err != nil {
		return 0, "", errors.Join(err, own.Close())
	}
	wait := bridge(conn, own)
	code, err = process.wait(ctx)
	_, _ = conn.Close(), own.Close() // rsync has ended, so both are only abandoned
	wait()
	return code, said.String(), err
}

// bridge copies between two connections until both directions have ended. wait returns then. rsync itself reports a broken
// connection, so errors are ignored.
func bridge(conn net.Conn, own *net.UnixConn) (wait func()) {
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(conn, own)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	both.Go(func() {
		_, _ = io.Copy(own, conn)
		_ = own.CloseWrite()
	})
	return both.Wait
}

// measure returns the number and the size of the volume's files, and the space that they occupy.
func measure(ctx context.Context, dir string) (total Progress, occupied int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return total, 0, errNoData(dir, err)
	}
	defer root.Close()
	links := map[uint64]bool{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it disappeared meanwhile
			}
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		total.TotalFiles++
		if !info.IsDir() && st.Nlink > 1 && len(links) < maxLinks {
			if links[st.Ino] {
				return nil
			}
			links[st.Ino] = true
		}
		occupied += st.Blocks * 512
		if info.Mode().IsRegular() {
			total.TotalBytes += info.Size()
		}
		return nil
	})
	if err != nil {
		return total, 0, fmt.Errorf("measure the volume: %w", err)
	}
	return total, occupied, nil
}

// ahead is how many entries of the copy are read ahead of the comparison.
const ahead = 1 << 14

// Compare reads both copies and compares them. If the project runs, the result is only an estimate, but both sides keep the
// hashes for the next comparison. Otherwise a copy that is equal is on the other node's disk.
func (s *Sender) Compare(ctx context.Context, running bool) (*Comparison, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := s.ask(ctx, &request{Operation: opList, UID: s.UID})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends its pending read
	defer stop()
	var walks sync.WaitGroup
	defer walks.Wait()
	defer cancel()
	original, copied := make(chan walked, ahead), make(chan walked, ahead)
	walks.Go(func() {
		send(ctx, original, func(emit func(*Entry) error) error { return s.walk(ctx, running, emit) })
	})
	walks.Go(func() { send(ctx, copied, func(emit func(*Entry) error) error { return s.listed(conn, emit) }) })
	return compare(receive(ctx, original), receive(ctx, copied))
}

// walk emits the entries of the original.
func (s *Sender) walk(ctx context.Context, running bool, emit func(*Entry) error) error {
	err := walkVolume(ctx, s.Dir, running, s.Cache, func() {}, emit)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoData(s.Dir, err)
	}
	return err
}

// listed reads the reply to opList.
func (s *Sender) listed(conn net.Conn, emit func(*Entry) error) error {
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		var next item
		if err := readMessage(r, &next); err != nil {
			return fmt.Errorf("read the copy's files from node %s: %w", s.Node, err)
		}
		switch {
		case next.End != nil:
			return next.End.err(s.Node)
		case next.Entry != nil: // otherwise it only shows that the other side is still there
			if err := emit(next.Entry); err != nil {
				return err
			}
		}
	}
}

// walked is an entry of a walk, or its end.
type walked struct {
	entry *Entry
	err   error // with entry nil; nil at the end
}

// send sends the entries of a walk.
func send(ctx context.Context, to chan<- walked, walk func(emit func(*Entry) error) error) {
	emit := func(w walked) error {
		select {
		case to <- w:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := walk(func(e *Entry) error { return emit(walked{entry: e}) })
	_ = emit(walked{err: err}) // fails only if nobody waits for it any more
}

// receive returns the entries of a walk one by one.
func receive(ctx context.Context, from <-chan walked) entries {
	return func() (*Entry, error) {
		select {
		case w := <-from:
			return w.entry, w.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Remove removes the copies of entries that differ, so that the next pass copies them again: rsync separates no hard links,
// for example. Directories stay; rsync corrects or deletes them.
func (s *Sender) Remove(ctx context.Context, c *Comparison) error {
	var paths [][]byte
	size := 0
	for _, d := range c.Differences {
		if size += 2 * len(d.Path); size > maxMessage/2 {
			break
		}
		if !d.Missing && !d.Directory && len(d.Path) > 0 {
			paths = append(paths, d.Path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	conn, err := s.ask(ctx, &request{Operation: opRemove, UID: s.UID, Paths: paths})
	if err != nil {
		return err
	}
	return conn.Close()
}
