package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"
)

const (
	sumSize = sha256.Size
	// block is the unit in which files are read.
	block = 128 << 10
	// maxNames is the maximum number of entries of one directory, because a walk sorts them in memory.
	maxNames = 4 << 20
	// maxLinks is the maximum number of files with several names in a volume, because a walk remembers each.
	maxLinks = 4 << 20
)

// walk reads a volume: each directory before its entries, and these by name.
type walk struct {
	root   *os.Root
	cache  *Cache
	synced time.Time // just before the file system was synced; zero if it was not
	// tick is called after each block and each entry.
	tick func()
	emit func(*Entry) error

	links map[inode][]byte // the first path of each file with several names
	sums  map[inode]hashed
	buf   []byte
}

// walkVolume calls emit for each entry of the volume in a directory. It never leaves the directory, whatever a container does
// in it meanwhile. Entries that disappear meanwhile are left out. If it syncs, everything that was written to the volume before
// is on disk afterwards, and the next walk can reuse the hashes.
func walkVolume(ctx context.Context, dir string, sync bool, cache *Cache, tick func(), emit func(*Entry) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	w := &walk{
		root: root, cache: cache, tick: tick, emit: emit,
		links: map[inode][]byte{}, sums: map[inode]hashed{}, buf: make([]byte, block),
	}
	top, err := root.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	if sync {
		w.synced = time.Now()
		if err := SyncFileSystem(top); err != nil {
			return fmt.Errorf("write the file system of %s to disk: %w", dir, err)
		}
	}
	if err := w.one(ctx, top, ".", ""); err != nil {
		return err
	}
	if err := w.directory(ctx, ""); err != nil {
		return err
	}
	cache.replace(w.sums)
	return nil
}

// directory reads the entries of one directory.
func (w *walk) directory(ctx context.Context, dir string) error {
	f, err := w.root.OpenFile(path.Join(".", dir), os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil // it is gone, or another object took its place
	}
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := namesOf(ctx, f)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.one(ctx, f, name, path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// namesOf returns the sorted names in a directory.
func namesOf(ctx context.Context, f *os.File) ([]string, error) {
	var out []string
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		names, err := f.Readdirnames(4096)
		out = append(out, names...)
		if len(out) > maxNames {
			return nil, fmt.Errorf("the directory %q has more than %d entries", f.Name(), maxNames)
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// one emits one entry, and those in it if it is a directory. at is its path in the volume; empty for the volume itself.
func (w *walk) one(ctx context.Context, dir *os.File, name, at string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e, of, s, err := statEntry(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %q: %w", at, err)
	}
	e.Path = []byte(at)
	if err := w.link(e, of); err != nil {
		return err
	}
	if e.regular() && len(e.First) == 0 {
		if err := w.content(ctx, dir, name, e, of.inode, s); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return fmt.Errorf("read %q: %w", at, err)
		}
	}
	w.tick()
	if err := w.emit(e); err != nil {
		return err
	}
	if e.directory() && at != "" {
		return w.directory(ctx, at)
	}
	return nil
}

// linked is an inode with its number of names.
type linked struct {
	inode
	names uint64
}

// link records the first name of a file, and sets it for further ones.
func (w *walk) link(e *Entry, of linked) error {
	if e.directory() || of.names < 2 {
		return nil
	}
	first, seen := w.links[of.inode]
	switch {
	case seen:
		e.First = first
	case len(w.links) >= maxLinks:
		return fmt.Errorf("the volume has more than %d files with hard links", maxLinks)
	default:
		w.links[of.inode] = e.Path
	}
	return nil
}

// content sets the hash of a file.
func (w *walk) content(ctx context.Context, dir *os.File, name string, e *Entry, of inode, s state) error {
	sum, known := w.cache.get(of, s)
	if !known {
		f, err := openEntry(dir, name, of)
		if err != nil {
			return err
		}
		defer f.Close()
		if sum, err = w.hash(ctx, f, s.size); err != nil {
			return err
		}
	}
	e.Sum = sum[:]
	if (known || keepable(s, w.synced)) && len(w.sums) < maxCached {
		if _, _, now, err := statEntry(dir, name); known || err == nil && now == s {
			w.sums[of] = hashed{state: s, sum: sum}
		}
	}
	return nil
}

// hash hashes a file's content: its size, and each block that is not all zero with its place. So holes cost nothing, and it
// does not matter which zeros are holes.
func (w *walk) hash(ctx context.Context, f *os.File, size int64) (sum [sumSize]byte, err error) {
	h, place, zero := sha256.New(), make([]byte, 8), make([]byte, block)
	for at := int64(0); at < size; at += block {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		data, err := nextData(f, at)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sum, err
		}
		at = max(at, data/block*block)
		n, err := f.ReadAt(w.buf[:min(block, size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return sum, err
		}
		w.tick()
		if string(w.buf[:n]) == string(zero[:n]) {
			continue
		}
		binary.BigEndian.PutUint64(place, uint64(at))
		_, _ = h.Write(place) // a hash never fails
		_, _ = h.Write(w.buf[:n])
	}
	binary.BigEndian.PutUint64(place, uint64(size))
	_, _ = h.Write(place)
	return [sumSize]byte(h.Sum(nil)), nil
}
