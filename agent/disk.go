package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// disk stores the assignments in force, one file each, so that containers are managed while the server is unreachable. It
// never stores Secrets and registry passwords. It does store the versions of Secrets, so that the next agent knows which
// containers are up to date.
type disk struct{ dir string }

// maxAssignment limits the size of a file that is read. No manifest is larger.
const maxAssignment = 16 << 20

func (d *disk) folder() string             { return filepath.Join(d.dir, "assignments") }
func (d *disk) path(project string) string { return filepath.Join(d.folder(), project+".json") }

// load returns the stored assignments. A file that cannot be parsed is renamed, and load fails only if that fails: files are
// written atomically, so a broken one means a disk error, and the server sends the assignment again.
func (d *disk) load() ([]*carav1.Assignment, error) {
	if err := os.MkdirAll(d.folder(), 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	entries, err := os.ReadDir(d.folder())
	if err != nil {
		return nil, fmt.Errorf("read the assignments: %w", err)
	}
	var out []*carav1.Assignment
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(d.folder(), e.Name())
		p, err := readAssignment(path)
		if err != nil || p.GetProject().GetMetadata().GetName()+".json" != e.Name() {
			if err := os.Rename(path, path+".broken"); err != nil {
				return nil, fmt.Errorf("set a broken assignment aside: %w", err)
			}
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

func readAssignment(path string) (*carav1.Assignment, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxAssignment {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxAssignment)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	read := protojson.UnmarshalOptions{DiscardUnknown: true}
	a := &carav1.Assignment{}
	if err := read.Unmarshal(data, a); err != nil || a.GetProject() != nil {
		return a, err
	}
	p := &carav1.Project{} // older agents stored only the project
	return &carav1.Assignment{Project: p}, read.Unmarshal(data, p)
}

// errNotKept means that an assignment in force is not on disk, usually because the disk is full.
var errNotKept = errors.New("the agent's data directory cannot be written")

func (d *disk) save(a *carav1.Assignment) error {
	data, err := protojson.Marshal(a)
	return d.write(d.path(a.GetProject().GetMetadata().GetName()), data, err)
}

// write replaces a file atomically. It returns err if the content could not be encoded.
func (d *disk) write(path string, data []byte, err error) error {
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(path, data, 0o600)
	}
	return d.notKept(err)
}

// notKept returns an error without the file name, which differs between files, because the error becomes the message of a
// node condition.
func (d *disk) notKept(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", errNotKept, d.dir, text.WithoutPath(err))
}

// try checks whether files can be written again.
func (d *disk) try() error {
	path := filepath.Join(d.folder(), "try")
	err := renameio.WriteFile(path, make([]byte, 64<<10), 0o600)
	if err == nil {
		err = os.Remove(path)
	}
	return d.notKept(err)
}

func (d *disk) usedPath(uid string) string { return filepath.Join(d.dir, "used", uid) }

// markUsed records that a project of this node uses a volume. Containers are created afterwards. From then on, no move and no
// restore fills the volume, and nobody deletes it as the copy of one that ended: a server that was restored from a backup may
// not know about the project's use.
func (d *disk) markUsed(uid string) error {
	if _, err := os.Lstat(d.usedPath(uid)); err == nil {
		return nil
	}
	return d.write(d.usedPath(uid), nil, nil)
}

// isUsed reports whether a project of this node has used a volume.
func (d *disk) isUsed(uid string) bool {
	_, err := os.Lstat(d.usedPath(uid))
	return !errors.Is(err, fs.ErrNotExist)
}

// forgetUsed drops what is known about volumes that the engine does not have. A volume may have been created just now, so what
// was recorded lately stays.
func (d *disk) forgetUsed(held map[string]bool, before time.Time) error {
	entries, err := os.ReadDir(filepath.Dir(d.usedPath("")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if info, err := e.Info(); !held[e.Name()] && err == nil && info.ModTime().Before(before) {
			errs = append(errs, os.Remove(d.usedPath(e.Name())))
		}
	}
	return errors.Join(errs...)
}

func (d *disk) remove(project string) error {
	for _, path := range []string{d.path(project), d.recordPath(project), d.backupPath(project)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the assignment of %s: %w", project, err)
		}
	}
	return nil
}

func (d *disk) recordPath(project string) string {
	return filepath.Join(d.dir, "records", project+".json")
}

// loadRecord returns a project's record. An unreadable record is ignored: it disables the rollback of an update, and which
// volumes were made is then known from the server only.
func (d *disk) loadRecord(project string) step.Record {
	var r step.Record
	data, err := os.ReadFile(d.recordPath(project))
	if err != nil || len(data) > maxAssignment || json.Unmarshal(data, &r) != nil {
		return step.Record{}
	}
	return r
}

// saveRecord keeps a project's record, and before it which volumes the project uses: that outlives the record.
func (d *disk) saveRecord(project string, r step.Record) error {
	for uid := range r.Made {
		if err := d.markUsed(uid); err != nil {
			return err
		}
	}
	data, err := json.Marshal(r)
	return d.write(d.recordPath(project), data, err)
}
