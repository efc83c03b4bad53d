// Package testtree fills directories with everything that a file system has, and compares directories, for tests of what
// copies volumes.
//
// It has no part in a push; the tests of agent/volume and e2e use it. It shares no code with agent/volume, so that an error
// there does not hide itself.
package testtree

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Fill fills a directory with everything that a file system has, and with a number of small files. It needs root.
func Fill(t testing.TB, dir string, files int) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	noise := make([]byte, 300<<10)
	_, _ = rand.Read(noise)
	must(os.MkdirAll(at("deep/er/est"), 0o710), os.Mkdir(at("empty"), 0o1777), os.Mkdir(at("-dash"), 0o700),
		os.WriteFile(at("noise"), noise, 0o640), os.Chown(at("noise"), 12345, 54321), os.Chmod(at("noise"), 0o4751),
		os.Link(at("noise"), at("deep/link")), os.Link(at("noise"), at("zlink")),
		os.WriteFile(at("line\nbreak"), []byte("x"), 0o600), os.WriteFile(at("not\xff\xfeutf8"), nil, 0o600),
		os.WriteFile(at("-rf"), []byte("dash"), 0o400), os.WriteFile(at(" space "), []byte("s"), 0o600), os.WriteFile(at("*?[x]'\"$(id)"), nil, 0o600),
		os.WriteFile(at(".hidden"), []byte("h"), 0o600), os.WriteFile(at("deep/er/est/file"), []byte("deep"), 0o604),
		os.Symlink("/etc/passwd", at("absolute")), os.Symlink("nowhere", at("dangling")), os.Symlink("../../..", at("deep/up")), os.Symlink("deep", at("dir")),
		os.Lchown(at("dangling"), 7, 8),
		unix.Mkfifo(at("fifo"), 0o622), unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(at("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 250))),
		unix.Mknod(at("socket"), unix.S_IFSOCK|0o755, 0), os.Link(at("fifo"), at("fifo2")))
	sparse, err := os.Create(at("sparse"))
	must(err)
	_, err = sparse.WriteAt([]byte("end"), 64<<20)
	must(err, sparse.Close())
	for i := range files {
		if i%100 == 0 {
			must(os.Mkdir(at(fmt.Sprintf("many-%d", i/100)), 0o755))
		}
		must(os.WriteFile(at(fmt.Sprintf("many-%d/%d", i/100, i)), fmt.Append(nil, i, strings.Repeat("y", i%5000)), 0o644))
	}
	attribute(t, at("noise"), "user.comment", "hello \x00 bytes")
	attribute(t, at("empty"), "user.dir", "d")
	attribute(t, at("-rf"), "trusted.secret", "t")
	// An ACL: user 4242 may read.
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0x92, 0x10, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 0x10, 0, 4, 0, 255, 255, 255, 255, 0x20, 0, 4, 0, 255, 255, 255, 255}
	attribute(t, at(".hidden"), "system.posix_acl_access", string(acl))
	old := time.Unix(1_000_000_000, 123_456_789)
	must(os.Chtimes(at("noise"), old, old), os.Chtimes(at("empty"), old, old), os.Chtimes(at("deep/er"), old, old), os.Chmod(dir, 0o2775), os.Chown(dir, 999, 998))
}

// attribute sets an extended attribute, if the file system has them.
func attribute(t testing.TB, file, name, value string) {
	t.Helper()
	if err := unix.Lsetxattr(file, name, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
}

// Same fails the test for each difference between two directories, except for extended attributes and holes. It needs root.
func Same(t testing.TB, from, to string) {
	t.Helper()
	a, b := names(t, from), names(t, to)
	if !slices.Equal(a, b) {
		t.Errorf("%d entries in %s became %d in %s", len(a), from, len(b), to)
	}
	for _, name := range a {
		same(t, filepath.Join(from, name), filepath.Join(to, name))
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		name, failed := filepath.Rel(dir, path)
		out = append(out, name)
		return errors.Join(err, failed)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t testing.TB, from, to string) {
	t.Helper()
	var a, b unix.Stat_t
	if err := errors.Join(unix.Lstat(from, &a), unix.Lstat(to, &b)); err != nil {
		t.Errorf("%q: %v", from, err)
		return
	}
	directory := a.Mode&unix.S_IFMT == unix.S_IFDIR
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim || a.Rdev != b.Rdev || !directory && (a.Size != b.Size || a.Nlink != b.Nlink) {
		t.Errorf("%q: %+v became %+v", from, a, b)
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if err := equal(from, to); err != nil {
			t.Errorf("%q: %v", from, err)
		}
	case unix.S_IFLNK:
		x, err1 := os.Readlink(from)
		y, err2 := os.Readlink(to)
		if err := errors.Join(err1, err2); err != nil || x != y {
			t.Errorf("%q: the link to %q became %q (%v)", from, x, y, err)
		}
	}
}

// equal compares the content of two files.
func equal(from, to string) error {
	a, err := os.Open(from)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(to)
	if err != nil {
		return err
	}
	defer b.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, err1 := io.ReadFull(a, x)
		m, err2 := io.ReadFull(b, y)
		if string(x[:n]) != string(y[:m]) {
			return errors.New("the content differs")
		}
		if err1 != nil || err2 != nil {
			return ended(err1, err2)
		}
	}
}

// ended returns an error if one of two files was not read to its end.
func ended(errs ...error) error {
	for _, err := range errs {
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read to the end: %w", err)
		}
	}
	return nil
}

// Random writes a file of random bytes, which no file system stores in less space.
func Random(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, size)
	return errors.Join(err, f.Close())
}
