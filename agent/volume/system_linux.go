package volume

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// statEntry reads an entry of a directory without following links, except for its content.
func statEntry(dir *os.File, name string) (*Entry, linked, state, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, linked{}, state{}, err
	}
	e := &Entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Sec: int64(st.Mtim.Sec), Nsec: int64(st.Mtim.Nsec)} //nolint:unconvert // their types differ between architectures
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Size = st.Size
	case unix.S_IFLNK:
		e.Target, err = readLink(dir, name, st.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Device = uint64(st.Rdev) //nolint:unconvert // its type differs between architectures
	}
	if err == nil {
		e.Attributes, err = attributes(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
	}
	of := linked{inode: inode{device: uint64(st.Dev), number: st.Ino}, names: uint64(st.Nlink)} //nolint:unconvert // their types differ between architectures
	return e, of, state{size: st.Size, modified: st.Mtim.Nano(), changed: st.Ctim.Nano()}, err
}

// readLink returns the target of a symbolic link.
func readLink(dir *os.File, name string, size int64) ([]byte, error) {
	buf := make([]byte, max(size, unix.PathMax)+1)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// maxAttribute is the maximum size of a list of attributes, and of one value, in the kernel.
const maxAttribute = 64 << 10

// attributes returns a hash of all extended attributes, or nil if there are none.
func attributes(file string) ([]byte, error) {
	buf := make([]byte, 1024)
	n, err := unix.Llistxattr(file, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxAttribute)
		n, err = unix.Llistxattr(file, buf)
	}
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list its extended attributes: %w", err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	h, value := sha256.New(), make([]byte, maxAttribute)
	for _, name := range names {
		n, err := unix.Lgetxattr(file, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read its extended attribute %q: %w", name, err)
		}
		for _, part := range [][]byte{[]byte(name), value[:n]} {
			_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // a hash never fails
			_, _ = h.Write(part)
		}
	}
	return h.Sum(nil), nil
}

// openEntry opens a regular file in a directory, if it is still the same one.
func openEntry(dir *os.File, name string, of inode) (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Openat(int(dir.Fd()), name, flags, 0)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, fs.ErrNotExist // another object took its place
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != of.number || uint64(st.Dev) != of.device { //nolint:unconvert // its type differs between architectures
		_ = f.Close() // it was only read
		return nil, errors.Join(err, fs.ErrNotExist)
	}
	return f, nil
}

// nextData returns the position of the first data of a file at or after a position, or io.EOF if there is none.
func nextData(f *os.File, at int64) (int64, error) {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, io.EOF
	case errors.Is(err, unix.EINVAL): // the file system does not know
		return at, nil
	}
	return data, err
}

// SyncFileSystem writes all dirty data of the file system of an open file to disk.
func SyncFileSystem(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// childAttributes are the attributes of a child process: it has its own process group, and dies with the agent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// FreeSpace returns the free bytes of the file system of a directory. The space that the directory's files occupy is not part of
// it.
func FreeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // its type differs between architectures
}
