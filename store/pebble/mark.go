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

// markName is the file beside the database that holds the newest acknowledged revision.
const markName = "acknowledged"

// mark writes the newest acknowledged revision to a file of its own. Pebble cannot tell a damaged end of its
// write-ahead log from a write that a crash cut off, and drops both without a word. The mark can tell them apart:
//
//   - It is written after the sync of a group and before its answers. So it is never newer than what is durable, and a
//     store that is behind its mark has lost acknowledged writes.
//   - It is not synced, so that it costs no commit a second sync. It outlives a kill of the process. After a power cut
//     it may be older than the store, or unreadable; it proves nothing then.
//
// The committer owns it.
type mark struct {
	file vfs.File
	buf  []byte
}

const markFormat = "acknowledged revision %020d\n"

// markSum is what follows the first line: a torn mark must not be taken for a revision.
func markSum(line []byte) string { return fmt.Sprintf("crc %08x\n", crc32.ChecksumIEEE(line)) }

func encodeMark(buf []byte, revision int64) []byte {
	buf = fmt.Appendf(buf[:0], markFormat, revision)
	return append(buf, markSum(buf)...)
}

// decodeMark returns the revision of a mark, or 0 if b is not a whole mark.
func decodeMark(b []byte) (revision int64) {
	_, err := fmt.Sscanf(string(b), markFormat, &revision)
	if err != nil || !bytes.Equal(encodeMark(nil, revision), b) {
		return 0
	}
	return revision
}

// readMark returns the revision in the mark of dir, or 0 if there is no mark that can be read.
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

// behind says what a store at revision has lost, or returns nil if its mark is not ahead of it.
func behind(disk vfs.FS, dir string, revision int64) error {
	acknowledged, err := readMark(disk, dir)
	if err != nil || acknowledged <= revision {
		return err
	}
	return fmt.Errorf("the store has lost acknowledged writes: its newest revision is %d, and revision %d was acknowledged; "+
		"the end of its write-ahead log is damaged or a file is missing: restore the data directory from a backup, "+
		"or delete the file %s to start without the lost writes", revision, acknowledged, disk.PathJoin(dir, markName))
}

// openMark makes the mark of dir say revision, durably.
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

func syncDir(disk vfs.FS, dir string) error {
	d, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write replaces the revision. A mark has always the same length and lies in one block of the disk.
func (m *mark) write(revision int64) error {
	m.buf = encodeMark(m.buf, revision)
	_, err := m.file.WriteAt(m.buf, 0)
	return err
}

// close makes the mark durable.
func (m *mark) close() error { return errors.Join(m.file.Sync(), m.file.Close()) }
