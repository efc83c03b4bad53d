package apiserver

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// newBackedUp is a cluster in which shop runs on n1 with data, and has backups with the Secret backups.
func newBackedUp(t *testing.T) *data {
	t.Helper()
	d := newData(t, "")
	p := db("")
	p.Spec.Backup = &carav1.Backup{SecretRef: "backups"}
	d.put(t, p)
	return d
}

// assigned returns the next assignment for which a condition holds. A report can cause one in between.
func (d *data) assigned(holds func(*carav1.Assignment) bool) *carav1.Assignment {
	d.one.t.Helper()
	for {
		if a := d.one.next().GetAssignment(); a != nil && holds(a) {
			return a
		}
	}
}

// TestBackupSecretReachesTheNode: the node gets every key that a Secret of type backup can have, without versions, so that no
// container is replaced when the password changes; and it gets new values.
func TestBackupSecretReachesTheNode(t *testing.T) {
	d := newBackedUp(t)
	problem := func(text string) {
		t.Helper()
		a := d.assigned(func(a *carav1.Assignment) bool { return strings.Contains(a.GetBackupProblem(), text) })
		if len(a.GetSecrets()) > 0 {
			t.Errorf("%d values with the problem %q", len(a.GetSecrets()), a.GetBackupProblem())
		}
	}
	password := func(want string) {
		t.Helper()
		a := d.assigned(func(a *carav1.Assignment) bool { return string(a.GetSecrets()["backups/password"]) == want })
		if a.GetBackupProblem() != "" || string(a.GetSecrets()["backups/repository"]) != "/srv/b" || len(a.GetSecretVersions()) > 0 {
			t.Errorf("problem %q, %d values, versions %v", a.GetBackupProblem(), len(a.GetSecrets()), a.GetSecretVersions())
		}
	}
	problem("does not exist")
	d.secret(t, "backups", "", map[string]string{"repository": "/srv/b", "password": "p1"})
	problem("is not of type backup")
	d.secret(t, "backups", api.SecretBackup, map[string]string{"repository": "/srv/b", "password": "p1"})
	password("p1")
	d.secret(t, "backups", api.SecretBackup, map[string]string{"repository": "/srv/b", "password": "p2"})
	password("p2")
}

func TestBackupProject(t *testing.T) {
	d := newData(t, "")
	d.create(t, web("later"))
	projects := carav1.NewProjectServiceClient(d.admin(t))
	ask := func(name string) (string, error) {
		p, err := projects.BackupProject(t.Context(), &carav1.BackupProjectRequest{Name: name})
		return p.GetStatus().GetBackupToken(), err
	}
	_, err := ask("nobody")
	testproblem.Want(t, err, codes.NotFound, api.TitleNotFound)
	_, err = ask("shop")
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict) // no spec.backup
	p := db("")
	p.Metadata.Name, p.Spec.Backup, p.Spec.Ingress = "waits", &carav1.Backup{SecretRef: "backups"}, nil
	d.create(t, p)
	_, err = ask("waits")
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict) // no node

	p = db("")
	p.Spec.Backup = &carav1.Backup{SecretRef: "backups"}
	d.put(t, p)
	first, err := ask("shop")
	if err != nil || first == "" {
		t.Fatal(first, err)
	}
	d.assigned(func(a *carav1.Assignment) bool { return a.GetProject().GetStatus().GetBackupToken() == first })
	if second, err := ask("shop"); err != nil || second == first {
		t.Errorf("the second token %q, %v", second, err)
	}
}

// TestBackupReport: a report without backups changes nothing, BackupStale begins with an event and ends with the next report,
// and the state goes with spec.backup.
func TestBackupReport(t *testing.T) {
	d := newBackedUp(t)
	projects := carav1.NewProjectServiceClient(d.admin(t))
	send := func(b *carav1.BackupStatus, conditions ...*carav1.Condition) *carav1.ProjectStatus {
		t.Helper()
		p, err := projects.GetProject(t.Context(), &carav1.GetRequest{Name: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := carav1.NewProjectServiceClient(d.one.conn).UpdateProjectStatus(t.Context(), &carav1.UpdateProjectStatusRequest{
			Name: "shop", Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(), ObservedGeneration: p.GetMetadata().GetGeneration(),
			Backup: b, Conditions: conditions,
		}); err != nil {
			t.Fatal(err)
		}
		if p, err = projects.GetProject(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
			t.Fatal(err)
		}
		return p.GetStatus()
	}
	done := &carav1.BackupStatus{State: api.BackupSucceeded, LastSuccess: timestamppb.Now(), Snapshots: []*carav1.BackupSnapshot{{Volume: "db", Id: "abc"}}}
	st := send(done, &carav1.Condition{Type: api.CondBackupStale, Status: api.StatusTrue, Reason: api.ReasonBackupStale, Message: "none for long"})
	if !proto.Equal(st.GetBackup(), done) || !api.IsTrue(st.GetConditions(), api.CondBackupStale) {
		t.Errorf("after the report: %v", st)
	}
	if st := send(nil); !proto.Equal(st.GetBackup(), done) || api.FindCondition(st.GetConditions(), api.CondBackupStale) != nil {
		t.Errorf("after a report without backups: %v", st)
	}
	events, err := carav1.NewEventServiceClient(d.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindProject, Name: "shop"})
	if err != nil || !slices.ContainsFunc(events.GetItems(), func(e *carav1.Event) bool { return e.GetReason() == api.ReasonBackupStale }) {
		t.Errorf("events %v, %v: want %s", events.GetItems(), err, api.ReasonBackupStale)
	}
	d.put(t, db(""))
	if st := send(nil); st.GetBackup() != nil {
		t.Errorf("without spec.backup: %v", st.GetBackup())
	}
}
