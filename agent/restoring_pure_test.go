package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/agent/backup"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestRestoreResult(t *testing.T) {
	failure := func(r api.Reason) error { return &backup.Failure{Reason: r} }
	tests := []struct {
		name  string
		err   error
		tried time.Duration
		want  string // reason; empty means that it is tried again
	}{
		{"the engine is away", errors.New("no answer"), time.Hour, ""},
		{"locked", failure(api.ReasonRepositoryLocked), restorePatience - 1, ""},
		{"locked for long", failure(api.ReasonRepositoryLocked), restorePatience, api.ReasonRepositoryLocked},
		{"unreachable", failure(api.ReasonRepositoryUnreachable), 0, ""},
		{"unreachable for long", failure(api.ReasonRepositoryUnreachable), restorePatience, api.ReasonRepositoryUnreachable},
		{"wrong password", failure(api.ReasonWrongPassword), 0, api.ReasonWrongPassword},
		{"no room", failure(api.ReasonDiskFull), 0, api.ReasonDiskFull},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := restoreResult(tt.err, tt.tried)
			if got.GetReason() != tt.want || got != nil && got.GetState() != api.VolumeRestoreFailed {
				t.Errorf("result %v, want %q", got, tt.want)
			}
		})
	}
}

func TestValidRestore(t *testing.T) {
	valid := func(change func(*carav1.RestoreVolume)) *carav1.RestoreVolume {
		q := &carav1.RestoreVolume{Uid: "0a-1", Project: "p", Name: "data", FromProject: "q", FromVolume: "data", Owner: "source/git"}
		change(q)
		return q
	}
	for name, tt := range map[string]struct {
		change func(*carav1.RestoreVolume)
		want   bool
	}{
		"all":                 {func(*carav1.RestoreVolume) {}, true},
		"a uid that is path":  {func(q *carav1.RestoreVolume) { q.Uid = "../x" }, false},
		"no uid":              {func(q *carav1.RestoreVolume) { q.Uid = "" }, false},
		"no project":          {func(q *carav1.RestoreVolume) { q.Project = "" }, false},
		"a tag in the volume": {func(q *carav1.RestoreVolume) { q.FromVolume = "a,pass=first" }, false},
		"an option":           {func(q *carav1.RestoreVolume) { q.FromProject = "-x" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := validRestore(valid(tt.change)); got != tt.want {
				t.Errorf("valid %v, want %v", got, tt.want)
			}
		})
	}
}

// TestTheEndOfARestoreWaits: when end returns, nothing writes to the volume any more.
func TestTheEndOfARestoreWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		job := &restoreJob{uid: "u1", ended: cancel}
		r := &restoring{
			disk: &disk{dir: dir}, inventory: &inventory{restored: map[string]*carav1.RestoredVolume{"u1": {}}}, jobs: map[string]*restoreJob{"u1": job},
		}
		writes := true
		job.running.Go(func() {
			<-ctx.Done()
			<-time.After(time.Minute) // restic ends slowly
			writes = false
		})
		r.end("u1")
		if writes {
			t.Error("it still writes")
		}
		synctest.Wait()
		if len(r.jobs) > 0 || len(r.inventory.restored) > 0 {
			t.Errorf("left %v, %v", r.jobs, r.inventory.restored)
		}
	})
}
