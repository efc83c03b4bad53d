package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caravanserai/cara/internal/test/testtree"
)

// TestFidelity: one pass copies everything that a file system has, and the comparison reads the same on both sides.
func TestFidelity(t *testing.T) {
	e := newEnds(t)
	files := 20_000
	if testing.Short() {
		files = 500
	}
	testtree.Fill(t, e.from, files)
	var last atomic.Pointer[Progress]
	e.copy(t, Pass{Progress: func(p Progress) { last.Store(&p) }})
	c := e.compare(t, false)
	if !c.Equal() {
		t.Errorf("not equal: %s", c)
	}
	if c.Entries < int64(files) {
		t.Errorf("%d entries were compared", c.Entries)
	}
	if p := last.Load(); p == nil || p.Bytes != p.TotalBytes || p.TotalFiles != c.Entries {
		t.Errorf("progress %+v of %d entries", p, c.Entries)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(e.to, "sparse"), &st); err != nil || st.Size != 64<<20+3 || st.Blocks*512 > 1<<20 {
		t.Errorf("the sparse file has %d bytes in %d blocks (%v)", st.Size, st.Blocks, err)
	}
	testtree.Same(t, e.from, e.to)
	again := e.compare(t, false) // with the hashes of the first comparison, where they are kept
	if !again.Equal() || again.Bytes != c.Bytes {
		t.Errorf("the second comparison: %+v, %s", again, again)
	}
}

// TestCompareFinds: each kind of difference is found, and copying again mends it.
func TestCompareFinds(t *testing.T) {
	// same keeps the size and the modification time of a file.
	same := func(change func(path string) error) func(path string) error {
		return func(path string) error {
			info, err := os.Lstat(path)
			return errors.Join(err, change(path), os.Chtimes(path, info.ModTime(), info.ModTime()))
		}
	}
	for name, tt := range map[string]struct {
		change func(to string) error
		want   string
	}{
		"content, with the same size and time": {func(to string) error {
			return same(func(p string) error { return os.WriteFile(p, []byte("DEEP"), 0o604) })(filepath.Join(to, "deep/er/est/file"))
		}, "its content differs"},
		"a bit in a large file": {func(to string) error {
			return same(func(p string) error {
				f, err := os.OpenFile(p, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				_, err = f.WriteAt([]byte{1}, 63<<20)
				return errors.Join(err, f.Close())
			})(filepath.Join(to, "sparse"))
		}, "its content differs"},
		"mode":        {func(to string) error { return os.Chmod(filepath.Join(to, "-rf"), 0o644) }, "its mode is 0644 instead of 0400"},
		"owner":       {func(to string) error { return os.Lchown(filepath.Join(to, "dangling"), 9, 8) }, "its owner is 9:8 instead of 7:8"},
		"time":        {func(to string) error { return os.Chtimes(filepath.Join(to, "empty"), time.Time{}, time.Unix(5, 0)) }, "its modification time is 1970-01-01T00:00:05Z"},
		"missing":     {func(to string) error { return os.Remove(filepath.Join(to, "fifo2")) }, `"fifo2" is missing`},
		"superfluous": {func(to string) error { return os.MkdirAll(filepath.Join(to, "x/y"), 0o700) }, `"x" is superfluous`},
		"link target": {func(to string) error {
			p := filepath.Join(to, "absolute")
			return errors.Join(os.Remove(p), os.Symlink("/etc/shadow", p))
		}, `it links to "/etc/shadow" instead of "/etc/passwd"`},
		"type": {func(to string) error {
			p := filepath.Join(to, "socket")
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o755))
		}, "its type is a directory instead of a socket"},
		"device": {func(to string) error {
			p := filepath.Join(to, "null")
			return errors.Join(os.Remove(p), unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
		}, "its device number"},
		"attribute":     {func(to string) error { return unix.Lsetxattr(filepath.Join(to, "empty"), "user.dir", []byte("e"), 0) }, "extended attributes"},
		"a broken link": {func(to string) error { return apart(filepath.Join(to, "zlink")) }, "its hard links are others"},
		"the root":      {func(to string) error { return os.Chmod(to, 0o700) }, "the volume's root directory: its mode"},
		"a link too many": {func(to string) error {
			p := filepath.Join(to, ".hidden")
			return errors.Join(os.Remove(p), os.Link(filepath.Join(to, "-rf"), p))
		}, `".hidden"`},
		"truncated": {func(to string) error { return os.Truncate(filepath.Join(to, "noise"), 5) }, "its size is 5 instead of"},
		"a symlink outside": {func(to string) error {
			p := filepath.Join(to, "deep")
			return errors.Join(os.Rename(p, to+"-away"), os.Symlink("/etc", p))
		}, "its type is a symbolic link instead of a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnds(t)
			testtree.Fill(t, e.from, 10)
			e.copy(t, Pass{})
			if c := e.compare(t, false); !c.Equal() {
				t.Fatal(c)
			}
			if err := tt.change(e.to); err != nil {
				t.Fatal(err)
			}
			c := e.compare(t, false)
			if !strings.Contains(c.String(), tt.want) {
				t.Errorf("found %q, want %q", c, tt.want)
			}
			if err := e.sender.Remove(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			e.copy(t, Pass{Checksum: true})
			if c := e.compare(t, false); !c.Equal() {
				t.Errorf("after the repair: %s", c)
			}
		})
	}
}

// apart gives a name of a file an inode of its own, with the same content and time.
func apart(path string) error {
	data, err := os.ReadFile(path)
	info, err2 := os.Stat(path)
	if err := errors.Join(err, err2, os.Remove(path), os.WriteFile(path, data, 0o600)); err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	return errors.Join(os.Chown(path, int(st.Uid), int(st.Gid)), unix.Chmod(path, st.Mode&0o7777), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// TestSecondPass: what changed since the first pass is copied, what was deleted is deleted, and a file that kept its size and
// time is found by the comparison.
func TestSecondPass(t *testing.T) {
	e := newEnds(t)
	testtree.Fill(t, e.from, 300)
	e.copy(t, Pass{Running: true})
	e.compare(t, true)
	e.write(t, "new", "new")
	e.write(t, "many-0/5", "changed")
	stealthy := filepath.Join(e.from, "many-0/7")
	info, err := os.Stat(stealthy)
	if err := errors.Join(err, os.WriteFile(stealthy, bytes.Repeat([]byte{'!'}, int(info.Size())), 0o600), os.Chtimes(stealthy, info.ModTime(), info.ModTime()),
		os.RemoveAll(filepath.Join(e.from, "deep")), os.Remove(filepath.Join(e.from, "fifo"))); err != nil {
		t.Fatal(err)
	}
	e.copy(t, Pass{})
	c := e.compare(t, false)
	if c.Total != 1 || c.String() != `"many-0/7": its content differs` {
		t.Errorf("after the second pass: %s", c)
	}
	if err := e.sender.Remove(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	e.copy(t, Pass{Checksum: true})
	if c := e.compare(t, false); !c.Equal() {
		t.Errorf("after the repair: %s", c)
	}
}

// TestWriterDuringPass: a first pass and its comparison succeed while a program writes, renames and deletes.
func TestWriterDuringPass(t *testing.T) {
	e := newEnds(t)
	testtree.Fill(t, e.from, 2000)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		var err error
		for i := 0; ctx.Err() == nil && err == nil; i++ {
			name := filepath.Join(e.from, fmt.Sprintf("many-%d", i%20), fmt.Sprintf("w%d", i%500))
			err = os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, i%9000), 0o600)
			if i%3 == 0 && err == nil {
				err = os.Rename(name, name+"r")
			}
			if i%7 == 0 && err == nil {
				err = os.RemoveAll(name)
			}
		}
		ended <- err
	}()
	for range 3 {
		e.copy(t, Pass{Running: true})
		e.compare(t, true)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	e.copy(t, Pass{})
	if c := e.compare(t, false); !c.Equal() {
		t.Errorf("after the writer has ended: %s", c)
	}
}

// TestPermission: only the node that the server named may send, only this volume, and only until the permission ends.
func TestPermission(t *testing.T) {
	e := newEnds(t)
	e.write(t, "file", "x")
	refused := func(s *Sender, want string) {
		t.Helper()
		for what, err := range map[string]error{
			"copy": s.Copy(t.Context(), Pass{}), "compare": func() error { _, err := s.Compare(t.Context(), false); return err }(),
			"remove": s.Remove(t.Context(), &Comparison{Differences: []Difference{{Path: []byte("file"), Why: "x"}}}),
		} {
			if err == nil || !strings.Contains(err.Error(), want) || IsFinal(err) {
				t.Errorf("%s: %v, want %q", what, err, want)
			}
		}
		if entries, err := os.ReadDir(e.to); err != nil || len(entries) > 0 {
			t.Errorf("the copy has %v (%v)", entries, err)
		}
	}
	const why = "the server has not allowed node"
	refused(e.senderOf(t, "n3"), why+" n3")
	other := e.senderOf(t, "n1")
	other.UID = "another"
	refused(other, why+" n1")
	e.receiver.Keep(map[string]bool{"another": true})
	refused(e.sender, why+" n1")
	e.receiver.Allow(uid, "n3")
	refused(e.sender, why+" n1")
	e.receiver.Allow(uid, "n1")
	e.copy(t, Pass{})
}

// TestPermissionEnds: a running copy is ended with its permission, and by a newer copy of the same volume.
func TestPermissionEnds(t *testing.T) {
	e := newEnds(t)
	testtree.Fill(t, e.from, 100)
	for name, end := range map[string]func(){
		"revoked":       func() { e.receiver.Revoke(uid) },
		"given away":    func() { e.receiver.Allow(uid, "n3") },
		"the link cut":  e.cut,
		"a newer copy":  func() { e.wrap = nil; e.copy(t, Pass{}) },
		"not listed":    func() { e.receiver.Keep(nil) },
		"still allowed": nil,
	} {
		t.Run(name, func(t *testing.T) {
			e.receiver.Revoke(uid)
			e.receiver.Allow(uid, "n1")
			reached, held := make(chan struct{}), make(chan struct{})
			e.wrap = func(c net.Conn) net.Conn { return &slow{Conn: c, left: 2000, reached: reached, held: held} }
			result := make(chan error, 1)
			go func() { result <- e.sender.Copy(t.Context(), Pass{}) }()
			<-reached
			if end == nil {
				e.receiver.Allow(uid, "n1") // the next connection's list has it again
				e.receiver.Keep(map[string]bool{uid: true})
				close(held)
				if err := <-result; err != nil {
					t.Error(err)
				}
				return
			}
			end()
			close(held)
			if err := <-result; err == nil {
				t.Error("the copy has succeeded")
			}
			e.wrap = nil
			e.receiver.Allow(uid, "n1")
			e.receiver.Revoke(uid)
			e.receiver.Allow(uid, "n1")
			e.copy(t, Pass{})
			if c := e.compare(t, false); !c.Equal() {
				t.Error(c)
			}
		})
	}
}

// slow holds a connection's writes after some bytes until held is closed.
type slow struct {
	net.Conn
	left          int
	reached, held chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	if before := s.left; before > 0 {
		if s.left -= len(p); s.left <= 0 {
			close(s.reached)
			<-s.held
		}
	}
	return s.Conn.Write(p)
}

// TestCanceled: a copy whose context ends leaves no process behind; goleak and the receiver's end show it.
func TestCanceled(t *testing.T) {
	e := newEnds(t)
	testtree.Fill(t, e.from, 100)
	ctx, cancel := context.WithCancel(t.Context())
	reached, held := make(chan struct{}), make(chan struct{})
	e.wrap = func(c net.Conn) net.Conn { return &slow{Conn: c, left: 2000, reached: reached, held: held} }
	result := make(chan error, 1)
	go func() { result <- e.sender.Copy(ctx, Pass{}) }()
	<-reached
	cancel()
	close(held)
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
