package agent

import (
	"encoding/json"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// backupAssignment is what the server has said about the backups of a project.
type backupAssignment struct {
	want    *step.Want
	token   string               // of the last request
	status  *carav1.BackupStatus // when the assignment was sent
	problem string               // with the Secret
}

// backedUp returns the projects that have backups.
func (a *assignments) backedUp() []backupAssignment {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []backupAssignment
	for _, t := range a.tasks {
		if t.held || t.project == nil || t.want.Spec.GetBackup() == nil {
			continue
		}
		st := t.project.GetStatus()
		out = append(out, backupAssignment{want: t.want, token: st.GetBackupToken(), status: st.GetBackup(), problem: t.backupProblem})
	}
	return out
}

// freeze makes the worker leave a project alone until thaw is called. It returns after the worker's current pass.
func (a *assignments) freeze(project string) (thaw func()) {
	a.mu.Lock()
	t := a.tasks[project]
	if t == nil {
		a.mu.Unlock()
		return func() {}
	}
	t.frozen = true
	a.mu.Unlock()
	t.turn.Lock()   // wait for the pass
	t.turn.Unlock() //nolint:staticcheck // a later pass does not begin, because the project is frozen
	return func() {
		a.mu.Lock()
		t.frozen = false
		a.mu.Unlock()
		a.hint(project)
	}
}

// enter begins a pass of the worker. It returns false if the project is frozen; otherwise the worker must unlock turn.
func (a *assignments) enter(t *task) bool {
	t.turn.Lock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.frozen {
		t.turn.Unlock()
		return false
	}
	return true
}

// keptBackup is the status of a project's backups on disk.
type keptBackup struct {
	UID    string          `json:"uid"`
	Status json.RawMessage `json:"status"`
}

func (d *disk) backupPath(project string) string {
	return filepath.Join(d.dir, "backup", project+".json")
}

// loadBackup returns the status of a project's backups, or nil. The server has another copy, so an unreadable file is ignored.
func (d *disk) loadBackup(project, uid string) *carav1.BackupStatus {
	var kept keptBackup
	data, err := os.ReadFile(d.backupPath(project))
	if err != nil || len(data) > maxAssignment || json.Unmarshal(data, &kept) != nil || kept.UID != uid {
		return nil
	}
	status := &carav1.BackupStatus{}
	if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(kept.Status, status) != nil {
		return nil
	}
	return status
}

func (d *disk) saveBackup(project, uid string, status *carav1.BackupStatus) error {
	data, err := protojson.Marshal(status)
	if err == nil {
		data, err = json.Marshal(keptBackup{UID: uid, Status: data})
	}
	return d.write(d.backupPath(project), data, err)
}
