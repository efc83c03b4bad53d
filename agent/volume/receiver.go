package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/confine"
)

// Receiver accepts the data of volumes from other nodes.
type Receiver struct {
	// Node is this node's name.
	Node string
	// Dir returns the directory with the data of the volume with this uid.
	Dir func(ctx context.Context, uid string) (string, error)
	Log *slog.Logger

	mu     sync.Mutex
	grants map[string]*grant // by the volume's uid
}

// grant is the permission of one node to send one volume.
type grant struct {
	from  string
	cache Cache
	done  chan struct{} // closed when the permission ends
	// turn has an entry while no operation runs.
	turn chan struct{}
	// stop ends the running operation. Guarded by Receiver.mu.
	stop context.CancelFunc
}

// Allow lets a node send a volume until Revoke. It keeps the running operation if the node has the permission already.
func (r *Receiver) Allow(uid, from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.grants[uid]; g != nil {
		if g.from == from {
			return
		}
		close(g.done)
	}
	if r.grants == nil {
		r.grants = map[string]*grant{}
	}
	g := &grant{from: from, done: make(chan struct{}), turn: make(chan struct{}, 1), stop: func() {}}
	g.turn <- struct{}{}
	r.grants[uid] = g
}

// Revoke ends the permission for a volume, and its running operation.
func (r *Receiver) Revoke(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.grants[uid]; g != nil {
		close(g.done)
		delete(r.grants, uid)
	}
}

// Keep revokes all permissions except those for the given volumes.
func (r *Receiver) Keep(uids map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid, g := range r.grants {
		if !uids[uid] {
			close(g.done)
			delete(r.grants, uid)
		}
	}
}

// permit returns the permission of a node to send a volume.
func permit(grants map[string]*grant, node, uid string) (*grant, error) {
	g := grants[uid]
	switch {
	case node == "":
		return nil, errors.New("only agents of this cluster can send a volume")
	case g == nil || g.from != node: // it does not say which volumes others may send
		return nil, fmt.Errorf("the server has not allowed node %s to send this volume; the move may have ended", node)
	}
	return g, nil
}

// requestPatience is how long a new connection may take to send its request.
const requestPatience = 30 * time.Second

// Serve serves one connection of a verified node, and closes it.
func (r *Receiver) Serve(ctx context.Context, node string, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var closing sync.WaitGroup
	defer closing.Wait()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends its pending reads and writes
	defer stop()
	var q request
	if conn.SetReadDeadline(time.Now().Add(requestPatience)) != nil || readMessage(conn, &q) != nil || conn.SetReadDeadline(time.Time{}) != nil {
		return // the other side reports it
	}
	g, err := r.enter(ctx, node, q.UID, cancel)
	if err == nil {
		defer func() { g.turn <- struct{}{} }()
		closing.Go(func() {
			select {
			case <-g.done:
				cancel()
			case <-ctx.Done():
			}
		})
		defer cancel()
		err = r.serve(ctx, g, conn, &q)
	} else {
		err = answer(conn, err)
	}
	if err != nil && ctx.Err() == nil {
		r.Log.Warn("a volume was not received", "from", node, "operation", q.Operation, "error", err)
	}
}

// enter waits until the operation may run: the newest one of a volume ends an earlier one.
func (r *Receiver) enter(ctx context.Context, node, uid string, stop context.CancelFunc) (*grant, error) {
	r.mu.Lock()
	g, err := permit(r.grants, node, uid)
	if err == nil {
		g.stop()
		g.stop = stop
	}
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-g.turn:
		return g, nil
	case <-g.done:
		return nil, errors.New("the permission to send the volume has ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve replies to a request.
func (r *Receiver) serve(ctx context.Context, g *grant, conn net.Conn, q *request) error {
	dir, err := r.Dir(ctx, q.UID)
	if err != nil {
		return answer(conn, err)
	}
	switch q.Operation {
	case opCopy:
		return r.copy(ctx, conn, dir, q.Need)
	case opList:
		return r.list(ctx, g, conn, dir)
	case opRemove:
		return answer(conn, remove(dir, q.Paths))
	}
	return answer(conn, final("the agent of node %s does not know the operation %q: update it", r.Node, q.Operation))
}

// answer sends the reply, and returns the error in it.
func answer(w io.Writer, err error) error {
	return errors.Join(err, writeMessage(w, replyOf(err)))
}

// copy runs the receiving rsync.
func (r *Receiver) copy(ctx context.Context, conn net.Conn, dir string, need int64) error {
	if err := r.room(ctx, dir, need); err != nil {
		return answer(conn, err)
	}
	config, err := receiveConfig(dir)
	if err != nil {
		return answer(conn, err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return answer(conn, err)
	}
	defer read.Close()
	_, err = io.WriteString(write, config) // it fits into the pipe
	if err := errors.Join(err, write.Close()); err != nil {
		return answer(conn, err)
	}
	cmd, err := confined(ctx, confine.Access{Link: []string{dir}}, "rsync", "--server", "--daemon", fmt.Sprintf("--config=/dev/fd/%d", socketFD), ".")
	if err != nil {
		return answer(conn, err)
	}
	cmd.ExtraFiles = []*os.File{read}
	return r.connect(ctx, cmd, conn)
}

// connect connects the receiving rsync with the other side's one. It replies once rsync runs.
func (r *Receiver) connect(ctx context.Context, cmd *exec.Cmd, conn net.Conn) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return answer(conn, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return answer(conn, err)
	}
	said := &head{}
	cmd.Stderr = said
	read := make(chan struct{}) // closed when all output was read, which must happen before Wait
	process, err := start(cmd, read)
	if err := answer(conn, err); err != nil {
		close(read)
		return err
	}
	var bridge sync.WaitGroup
	defer bridge.Wait()
	defer conn.Close() // ends the pending read
	bridge.Go(func() {
		_, _ = io.Copy(in, conn) // rsync reports a broken connection
		_ = in.Close()           // as above
	})
	_, _ = io.Copy(conn, out) // as above
	close(read)
	code, err := process.wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("rsync ended with exit code %d: %s", code, firstLines(said.String()))
	}
	return err
}

// room returns an error if the volume does not fit on the disk.
func (r *Receiver) room(ctx context.Context, dir string, need int64) error {
	_, has, err := measure(ctx, dir)
	if err != nil {
		return err
	}
	free, err := FreeSpace(dir)
	if err != nil {
		return err
	}
	return fits(need, has, free)
}

// fits returns an error if a volume that needs some space does not fit where a part of it exists.
func fits(need, has, free int64) error {
	if need <= has+free {
		return nil
	}
	return final("no space left for the volume: %s are free on the disk with the engine's volumes, and %s more are needed; free some there, "+
		"or move the project to another node", SizeText(free), SizeText(need-has))
}

// list walks the copy.
func (r *Receiver) list(ctx context.Context, g *grant, conn net.Conn, dir string) error {
	if err := writeMessage(conn, &reply{}); err != nil {
		return err
	}
	w := bufio.NewWriterSize(conn, 64<<10)
	sent := time.Now()
	send := func(i item) error {
		sent = time.Now()
		return writeMessage(w, i)
	}
	err := walkVolume(ctx, dir, true, &g.cache, func() {
		if time.Since(sent) > signOfLife {
			_ = errors.Join(send(item{}), w.Flush()) // an error returns with the next entry
		}
	}, func(e *Entry) error { return send(item{Entry: e}) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, send(item{End: replyOf(err)}), w.Flush())
}

// signOfLife is how often a walk sends something while it reads a large file.
const signOfLife = 5 * time.Second

// remove removes entries that are no directories. It never leaves the directory.
func remove(dir string, paths [][]byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, p := range paths {
		info, err := root.Lstat(string(p))
		if err == nil && !info.IsDir() {
			err = root.Remove(string(p))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// SizeText returns a size for people.
func SizeText(bytes int64) string {
	const mib, gib = 1 << 20, 1 << 30
	if bytes < gib {
		return fmt.Sprintf("%.1f MiB", float64(bytes)/mib)
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/gib)
}
