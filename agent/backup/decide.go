package backup

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Kinds of work that is due.
const (
	Nothing  = ""
	ToBackUp = "backup"
	ToVerify = "verify"
)

// verifyEvery is how often the last backup is verified.
const verifyEvery = 7 * 24 * time.Hour

// retryAfter is how long after a failure that may pass by itself a scheduled backup is tried again.
const retryAfter = 15 * time.Minute

// View is what a decision about a project's backups depends on.
type View struct {
	Spec *carav1.Backup
	// Status of the project's backups, or nil at the beginning.
	Status *carav1.BackupStatus
	// Token is that of the last request for a backup.
	Token string
	// Busy is true while no backup may begin: one runs, the project moves or ends, or its Secrets are not here yet.
	Busy bool
	Now  time.Time
}

// Decide returns what is due now, the status with that noted in it, and when to decide again (zero for when something changes).
// The status is a copy. A time that comes while the project is busy counts once afterwards.
func Decide(v View) (kind string, status *carav1.BackupStatus, again time.Time) {
	status = begin(v)
	var due bool
	status.NextRun = nil
	if s, err := syntax.ParseSchedule(v.Spec.GetSchedule()); err == nil && v.Spec.GetSchedule() != nil {
		var from, next time.Time
		due, from, next = syntax.BackupDue(status.GetLastDue().AsTime(), v.Now, s)
		status.LastDue = timestamppb.New(from)
		if !next.IsZero() {
			status.NextRun, again = timestamppb.New(next), next
		}
	}
	if retry := retryAt(v.Spec, status); !retry.IsZero() && !due {
		due, again = !v.Now.Before(retry), earlier(again, retry)
	}
	if v.Token != "" && v.Token != status.GetToken() {
		due = true
	}
	if due && !v.Busy {
		status.LastDue, status.LastAttempt, status.Token = timestamppb.New(v.Now), timestamppb.New(v.Now), v.Token
		status.State, status.Reason, status.Message = api.BackupRunning, "", ""
		return ToBackUp, status, again
	}
	verify := verifyAt(v.Spec, status)
	if !verify.IsZero() && !v.Now.Before(verify) && !v.Busy && !due {
		status.LastVerify = timestamppb.New(v.Now)
		return ToVerify, status, again
	}
	return Nothing, status, earlier(again, verify)
}

// begin returns a copy of the status. A request from before the beginning counts as new.
func begin(v View) *carav1.BackupStatus {
	if v.Status.GetSince() == nil {
		return &carav1.BackupStatus{Since: timestamppb.New(v.Now), LastDue: timestamppb.New(v.Now)}
	}
	return proto.CloneOf(v.Status)
}

// retryAt returns when to try a failed backup again, or zero. Wrong settings do not get better. A project without a schedule
// only repeats a requested backup that was interrupted: a person sees the other failures, and can ask again.
func retryAt(spec *carav1.Backup, status *carav1.BackupStatus) time.Time {
	if status.GetState() != api.BackupFailed {
		return time.Time{}
	}
	switch reason := status.GetReason(); {
	case reason == api.ReasonBackupCancelled,
		spec.GetSchedule() != nil && (reason == api.ReasonRepositoryUnreachable || reason == api.ReasonRepositoryLocked):
		return status.GetLastAttempt().AsTime().Add(retryAfter)
	}
	return time.Time{}
}

// verifyAt returns when the last backup is to be verified next, or zero.
func verifyAt(spec *carav1.Backup, status *carav1.BackupStatus) time.Time {
	if spec.GetVerify() != api.VerifyWeekly || status.GetLastSuccess() == nil || len(status.GetSnapshots()) == 0 {
		return time.Time{}
	}
	last := status.GetSince().AsTime()
	if status.GetLastVerify() != nil {
		last = status.GetLastVerify().AsTime()
	}
	return last.Add(verifyEvery)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Interrupted returns the status after the agent that made a backup was stopped. The backup is tried again like one that failed
// for a reason that passes by itself.
func Interrupted(status *carav1.BackupStatus) *carav1.BackupStatus {
	if status.GetState() != api.BackupRunning {
		return status
	}
	out := proto.CloneOf(status)
	out.State, out.Reason = api.BackupFailed, api.ReasonBackupCancelled
	out.Message = "the node's agent was stopped during the backup; the backup is tried again"
	return out
}

// Blocked returns the condition of a project whose next backup will fail because of a problem of its node, or nil. The condition
// exists before the first backup is due, and also if backups are made only by request.
func Blocked(spec *carav1.Backup, node string, problem *Failure) *carav1.Condition {
	if spec == nil || problem == nil {
		return nil
	}
	return api.NewCondition(api.CondBackupBlocked, api.StatusTrue, problem.Reason, "the project cannot be backed up on node "+node+": "+problem.Message)
}

// Stale returns the condition of a project whose backups have not succeeded for two intervals of the schedule, or nil.
func Stale(spec *carav1.Backup, status *carav1.BackupStatus, now time.Time) *carav1.Condition {
	s, err := syntax.ParseSchedule(spec.GetSchedule())
	if err != nil || spec.GetSchedule() == nil || status.GetSince() == nil {
		return nil
	}
	last, said := status.GetSince().AsTime(), "no backup has succeeded since "
	if status.GetLastSuccess() != nil {
		last, said = status.GetLastSuccess().AsTime(), "the last successful backup is of "
	}
	if !syntax.BackupIsStale(last, now, s) {
		return nil
	}
	message := said + last.UTC().Format(time.RFC3339)
	if status.GetState() == api.BackupFailed {
		message += ": " + status.GetMessage()
	}
	return api.NewCondition(api.CondBackupStale, api.StatusTrue, api.ReasonBackupStale, message)
}
