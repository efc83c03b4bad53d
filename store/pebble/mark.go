package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// markName is the file in the data directory that holds the newest acknowledged revision.
const markName = "acknowledged"

// mark writes the newest acknowledged revision to its own file. Pebble cannot distinguish a damaged end of its write-ahead
// log from a write that was cut off by a crash, and silently drops both. The mark distinguishes them:
//
//   - It is written after the sync of a group and before its results are sent. So it is never newer than what is durable,
//     and a store that is behind its mark has lost acknowledged writes.
//   - It is not synced, so it costs no second sync per commit. It survives a kill of the process. After a power failure it
//     may be older than the store, or unreadable, and then proves nothing.
//
// The committer owns it.
type mark struct {
	file vfs.File
	buf  []byte
}

const markFormat = "acknowledged revision %020d\n"

// markSum returns the checksum line, so that a torn mark is not read as a revision.
func markSum(line []byte) string { return fmt.Sprintf("crc %08x\n", crc32.ChecksumIEEE(line)) }

func encodeMark(buf []byte, revision int64) []byte {
	buf = fmt.Appendf(buf[:0], markFormat, revision)
	return append(buf, markSum(buf)...)
}

// decodeMark returns the revision of a mark, or 0 if b is not a complete mark.
func decodeMark(b []byte) (revision int64) {
	_, err := fmt.Sscanf(string(b), markFormat, &revision)
	if err != nil || !bytes.Equal(encodeMark(nil, revision), b) {
		return 0
	}
	return revision
}

// readMark returns the revision in the mark of dir, or 0 if there is no readable mark.
func readMark(disk vfs.FS, dir string) (int64, error) {
	f, err := disk.Open(disk.PathJoin(dir, markName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(len(encodeMark(nil, 0)))))
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("read %s: %w", markName, err)
	}
	return decodeMark(b), nil
}

// behind returns an error if the mark is ahead of the store's revision, so that writes were lost.
func behind(disk vfs.FS, dir string, revision int64) error {
	acknowledged, err := readMark(disk, dir)
	if err != nil || acknowledged <= revision {
		return err
	}
	return fmt.Errorf("the store has lost acknowledged writes: its newest revision is %d, and revision %d was acknowledged; "+
		"the end of its write-ahead log is damaged or a file is missing: restore the data directory from a backup, "+
		"or delete the file %s to start without the lost writes", revision, acknowledged, disk.PathJoin(dir, markName))
}

// openMark opens the mark of dir and durably writes revision to it.
func openMark(disk vfs.FS, dir string, revision int64) (*mark, error) {
	f, err := disk.OpenReadWrite(disk.PathJoin(dir, markName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	m := &mark{file: f}
	if err := errors.Join(m.write(revision), f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := syncDir(disk, dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

// writeMark durably writes the mark of a directory that no store has open.
func writeMark(disk vfs.FS, dir string, revision int64) error {
	m, err := openMark(disk, dir, revision)
	if err != nil {
		return err
	}
	return m.close()
}

func syncDir(disk vfs.FS, dir string) error {
	d, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write replaces the revision. A mark always has the same length and fits into one block of the disk.
func (m *mark) write(revision int64) error {
	m.buf = encodeMark(m.buf, revision)
	_, err := m.file.WriteAt(m.buf, 0)
	return err
}

func (m *mark) close() error { return errors.Join(m.file.Sync(), m.file.Close()) }
