package agent

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/stream"
)

// TestRecordIsKeptWhole: what the next agent reads is all that this one knew.
func TestRecordIsKeptWhole(t *testing.T) {
	at := time.Unix(1_800_000_000, 5).UTC()
	r := step.Record{
		UID: "u", Epoch: 3,
		Served:    &step.Served{Generation: 2, Restart: "t1", Restarts: map[string]string{"a": "t1"}, Hashes: map[string]string{"a": "h"}},
		Completed: map[string]step.Completion{"job": {RunHash: "h", Restart: "t1", ImageDigest: "d", ContainerID: "c", StartedAt: at}},
		Yielded:   map[string]bool{"c": true},
		InPlace:   map[string]step.InPlace{"c": {Token: "t1", Run: at}},
		Made:      map[string]bool{"v1": true},
		Failed:    &step.FailedUpdate{Generation: 2, Restart: "t1", Service: "a", Reason: "CrashLoop"},
		Verified:  &step.Verified{ID: "m1", Attempts: 1}, StoppedForMove: map[string]time.Time{"c": at},
	}
	for field, value := range reflect.ValueOf(r).Fields() {
		if value.IsZero() {
			t.Errorf("the test leaves %s out", field.Name)
		}
	}
	d := &disk{dir: t.TempDir()}
	if err := d.saveRecord("p", r); err != nil {
		t.Fatal(err)
	}
	if got := d.loadRecord("p"); !reflect.DeepEqual(got, r) {
		t.Errorf("read %+v, want %+v", got, r)
	}
}

// TestRemovalFromDiskIsRetried: the files of a removed project are tried again until they are gone, the kept logs first.
func TestRemovalFromDiskIsRetried(t *testing.T) {
	dir := t.TempDir()
	w := &worker{disk: &disk{dir: dir}, kept: stream.KeptLogsIn(filepath.Join(dir, "logs"))}
	assignment, log := w.disk.path("p"), filepath.Join(dir, "logs", "p.a.json")
	write := func(path string, obstacle bool) {
		t.Helper()
		if obstacle { // a directory that is not empty cannot be removed as a file
			path = filepath.Join(path, "x")
		}
		if err := errors.Join(os.RemoveAll(filepath.Dir(path)), os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	ws, want := &task{}, &step.Want{Storage: step.Storage{Assigned: step.Assigned{Project: "p"}}, Remove: true}

	write(assignment, false)
	write(log, true)
	if err := w.keep(ws, want); err == nil || !exists(assignment) {
		t.Errorf("with a log that cannot be removed: %v, and the assignment exists: %t", err, exists(assignment))
	}
	write(log, false)
	write(assignment, true)
	if err := w.keep(ws, want); err == nil || exists(log) {
		t.Errorf("with an assignment that cannot be removed: %v, and the log exists: %t", err, exists(log))
	}
	write(assignment, false)
	if err := w.keep(ws, want); err != nil || exists(assignment) {
		t.Errorf("at the end: %v, and the assignment exists: %t", err, exists(assignment))
	}
}
