package backup

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func stamp(t *testing.T, text string) *timestamppb.Timestamp { return timestamppb.New(at(t, text)) }

func TestDecide(t *testing.T) {
	nightly := &carav1.Backup{Schedule: &carav1.BackupSchedule{Cron: "0 3 * * *"}}
	verified := &carav1.Backup{Schedule: nightly.Schedule, Verify: api.VerifyWeekly}
	status := func(change func(*carav1.BackupStatus)) *carav1.BackupStatus {
		s := &carav1.BackupStatus{
			Since: stamp(t, "2026-05-01T12:00:00Z"), LastDue: stamp(t, "2026-05-02T03:00:00Z"), LastAttempt: stamp(t, "2026-05-02T03:00:00Z"),
			LastSuccess: stamp(t, "2026-05-02T03:01:00Z"), State: api.BackupSucceeded, Token: "t1", Snapshots: []*carav1.BackupSnapshot{{Id: "abcdef01"}},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	failed := func(reason string) *carav1.BackupStatus {
		return status(func(s *carav1.BackupStatus) { s.State, s.Reason = api.BackupFailed, reason })
	}
	tests := []struct {
		name  string
		view  View
		now   string
		kind  string
		again string // empty for never
	}{
		{"the beginning is not due", View{Spec: nightly}, "2026-05-02T12:00:00Z", Nothing, "2026-05-03T03:00:00Z"},
		{"a request at the beginning", View{Spec: nightly, Token: "t0"}, "2026-05-02T12:00:00Z", ToBackUp, "2026-05-03T03:00:00Z"},
		{"not yet", View{Spec: nightly, Status: status(nil), Token: "t1"}, "2026-05-03T02:59:00Z", Nothing, "2026-05-03T03:00:00Z"},
		{"due", View{Spec: nightly, Status: status(nil), Token: "t1"}, "2026-05-03T03:00:00Z", ToBackUp, "2026-05-04T03:00:00Z"},
		{"due, but another one runs", View{Spec: nightly, Status: status(nil), Token: "t1", Busy: true}, "2026-05-03T03:00:00Z", Nothing, "2026-05-04T03:00:00Z"},
		{"missed for a week", View{Spec: nightly, Status: status(nil), Token: "t1"}, "2026-05-08T12:00:00Z", ToBackUp, "2026-05-09T03:00:00Z"},
		{"a new request", View{Spec: nightly, Status: status(nil), Token: "t2"}, "2026-05-02T12:00:00Z", ToBackUp, "2026-05-03T03:00:00Z"},
		{"a request while busy", View{Spec: nightly, Status: status(nil), Token: "t2", Busy: true}, "2026-05-02T12:00:00Z", Nothing, "2026-05-03T03:00:00Z"},
		{"without a schedule", View{Spec: &carav1.Backup{}, Status: status(nil), Token: "t1"}, "2026-06-02T12:00:00Z", Nothing, ""},
		{"the repository was away", View{Spec: nightly, Status: failed(api.ReasonRepositoryUnreachable), Token: "t1"}, "2026-05-02T03:10:00Z", Nothing, "2026-05-02T03:15:00Z"},
		{"it is tried again", View{Spec: nightly, Status: failed(api.ReasonRepositoryUnreachable), Token: "t1"}, "2026-05-02T03:15:00Z", ToBackUp, "2026-05-02T03:15:00Z"},
		{"an interrupted request", View{Spec: &carav1.Backup{}, Status: failed(api.ReasonBackupCancelled), Token: "t1"}, "2026-05-02T03:10:00Z", Nothing, "2026-05-02T03:15:00Z"},
		{"is tried again", View{Spec: &carav1.Backup{}, Status: failed(api.ReasonBackupCancelled), Token: "t1"}, "2026-05-02T03:15:00Z", ToBackUp, "2026-05-02T03:15:00Z"},
		{"a failed request is not", View{Spec: &carav1.Backup{}, Status: failed(api.ReasonRepositoryUnreachable), Token: "t1"}, "2026-05-02T12:00:00Z", Nothing, ""},
		{"a wrong password is not", View{Spec: nightly, Status: failed(api.ReasonWrongPassword), Token: "t1"}, "2026-05-02T12:00:00Z", Nothing, "2026-05-03T03:00:00Z"},
		{"verification is not due", View{Spec: verified, Status: status(nil), Token: "t1"}, "2026-05-02T12:00:00Z", Nothing, "2026-05-03T03:00:00Z"},
		{
			"verification is due",
			View{Spec: verified, Token: "t1", Status: status(func(s *carav1.BackupStatus) { s.LastDue = stamp(t, "2026-05-08T03:00:00Z") })},
			"2026-05-08T12:00:00Z", ToVerify, "2026-05-09T03:00:00Z",
		},
		{
			"a backup comes first",
			View{Spec: verified, Token: "t2", Status: status(func(s *carav1.BackupStatus) { s.LastDue = stamp(t, "2026-05-08T03:00:00Z") })},
			"2026-05-08T12:00:00Z", ToBackUp, "2026-05-09T03:00:00Z",
		},
		{"nothing to verify", View{Spec: &carav1.Backup{Verify: api.VerifyWeekly}, Status: &carav1.BackupStatus{Since: stamp(t, "2026-05-01T12:00:00Z")}}, "2026-06-01T12:00:00Z", Nothing, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.view.Now = at(t, tt.now)
			kind, next, again := Decide(tt.view)
			text := ""
			if !again.IsZero() {
				text = again.UTC().Format(time.RFC3339)
			}
			if kind != tt.kind || text != tt.again {
				t.Errorf("%q, again %q; want %q, again %q", kind, text, tt.kind, tt.again)
			}
			if kind != ToBackUp {
				return
			}
			if next.GetState() != api.BackupRunning || next.GetToken() != tt.view.Token || !next.GetLastDue().AsTime().Equal(tt.view.Now) {
				t.Errorf("status %v", next)
			}
			tt.view.Status = next
			if kind, _, _ := Decide(tt.view); kind == ToBackUp {
				t.Error("two backups for one time")
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	s := &carav1.BackupStatus{State: api.BackupRunning, LastAttempt: stamp(t, "2026-05-02T03:00:00Z")}
	if got := Interrupted(s); got.GetState() != api.BackupFailed || got.GetReason() != api.ReasonBackupCancelled || s.GetState() != api.BackupRunning {
		t.Errorf("status %v", got)
	}
	s.State = api.BackupSucceeded
	if got := Interrupted(s); got != s {
		t.Errorf("status %v", got)
	}
}

func TestStale(t *testing.T) {
	nightly := &carav1.Backup{Schedule: &carav1.BackupSchedule{Cron: "0 3 * * *"}}
	since := &carav1.BackupStatus{Since: stamp(t, "2026-05-01T12:00:00Z")}
	succeeded := &carav1.BackupStatus{Since: since.Since, LastSuccess: stamp(t, "2026-05-05T03:01:00Z"), State: api.BackupFailed, Message: "the disk is gone"}
	tests := []struct {
		name   string
		spec   *carav1.Backup
		status *carav1.BackupStatus
		now    string
		want   string
	}{
		{"no schedule", &carav1.Backup{}, since, "2027-05-01T12:00:00Z", ""},
		{"not begun", nightly, nil, "2027-05-01T12:00:00Z", ""},
		{"young", nightly, since, "2026-05-03T01:00:00Z", ""},
		{"never succeeded", nightly, since, "2026-05-03T12:00:01Z", "no backup has succeeded since 2026-05-01T12:00:00Z"},
		{"fresh", nightly, succeeded, "2026-05-07T03:00:00Z", ""},
		{"old", nightly, succeeded, "2026-05-07T03:01:01Z", "the last successful backup is of 2026-05-05T03:01:00Z: the disk is gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Stale(tt.spec, tt.status, at(t, tt.now)).GetMessage(); got != tt.want {
				t.Errorf("message %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBlocked(t *testing.T) {
	missing := &Failure{Reason: api.ReasonResticMissing, Message: "restic is not installed on this node: install the package restic"}
	tests := []struct {
		name    string
		spec    *carav1.Backup
		problem *Failure
		want    string
	}{
		{"no backups", nil, missing, ""},
		{"no problem", &carav1.Backup{}, nil, ""},
		{"by request only", &carav1.Backup{}, missing, "the project cannot be backed up on node n1: restic is not installed on this node: install the package restic"},
		{"by schedule", &carav1.Backup{Schedule: &carav1.BackupSchedule{Cron: "0 3 * * *"}}, missing, "the project cannot be backed up on node n1: restic is not installed on this node: install the package restic"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Blocked(tt.spec, "n1", tt.problem)
			if got.GetMessage() != tt.want {
				t.Errorf("message %q, want %q", got.GetMessage(), tt.want)
			}
			if got != nil && (got.GetType() != api.CondBackupBlocked || got.GetStatus() != api.StatusTrue || got.GetReason() != api.ReasonResticMissing) {
				t.Errorf("condition %v", got)
			}
		})
	}
}
