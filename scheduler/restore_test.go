package scheduler

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// restorer gives a node what it needs to restore backups.
func restorer(n *carav1.Node) *carav1.Node {
	n.Status.Info.Tools = map[string]string{api.ToolRestic: "0.18.0"}
	return n
}

// backedUp gives a project backups of all its volumes, which are restored when its node is lost.
func backedUp(p *carav1.Project) *carav1.Project {
	p.Spec.Backup, p.Spec.OnNodeLoss = &carav1.Backup{SecretRef: "backups"}, api.NodeLossRestore
	p.Status.Backup = &carav1.BackupStatus{LastSuccess: timestamppb.New(time.Date(1999, 12, 31, 19, 0, 0, 0, time.UTC))}
	for _, u := range p.Status.Volumes {
		p.Status.Backup.Snapshots = append(p.Status.Backup.Snapshots, &carav1.BackupSnapshot{Volume: u.Name, Uid: u.Uid, Id: "1"})
	}
	return p
}

// restore answers RestoreProject of the scheduler. It is called with mu held.
func (w *fakeServer) restore(req *carav1.RestoreProjectRequest) (*carav1.Project, error) {
	w.restores.Add(1)
	if w.refuse != nil {
		return nil, w.refuse
	}
	p := proto.CloneOf(w.projects[req.Name])
	if p.Status.Move != nil {
		return nil, api.BadState("project %s is being restored already", req.Name)
	}
	p.Status.Move = &carav1.Move{Id: "m", From: p.Status.NodeRef, To: req.Node, Step: api.MoveRequested, Actor: "system/scheduler", Restore: &carav1.Restore{Volumes: volumesOf(p)}}
	w.saysRestoring(p, api.StatusTrue, api.MoveRequested, "")
	w.put(false, p)
	return p, nil
}

func volumesOf(p *carav1.Project) []string {
	var names []string
	for _, u := range p.Status.Volumes {
		names = append(names, u.Name)
	}
	return names
}

func (w *fakeServer) saysRestoring(p *carav1.Project, status, reason, message string) {
	p.Status.Conditions, _ = api.SetCondition(p.Status.Conditions, &carav1.Condition{
		Type: api.CondRestoring, Status: status, Reason: reason, Message: message,
	}, time.Now())
}

// restored ends a restore: the project starts with its new data, or stays with a reason.
func (w *fakeServer) restored(name, why string) {
	w.change(name, func(p *carav1.Project) {
		to := p.Status.Move.To
		p.Status.Move = nil
		if why != "" {
			w.saysRestoring(p, api.StatusFalse, api.ReasonRestoreFailed, why)
			return
		}
		p.Status.Phase, p.Status.NodeRef, p.Status.Epoch = api.PhaseScheduled, to, p.Status.Epoch+1
		for _, u := range p.Status.Volumes {
			u.Node = to
		}
		w.saysRestoring(p, api.StatusFalse, api.ReasonRestored, "")
	})
}

// step returns the step of a project's restore, and its node.
func (w *fakeServer) step(name string) string {
	m := w.project(name).GetStatus().GetMove()
	return strings.TrimSpace(m.GetStep() + " " + m.GetTo())
}

func TestRecover(t *testing.T) {
	lost := &Candidate{Name: "n1", Unfit: NotReady}
	able := &Candidate{Name: "n2", Restores: true}
	nothing := func(*carav1.Project) {}
	for _, test := range []struct {
		name   string
		change func(p *carav1.Project)
		nodes  []*Candidate
		want   Recovery
	}{
		{"another node restores", nothing, []*Candidate{lost, able}, Recovery{Node: "n2"}},
		{"the node was deleted", nothing, []*Candidate{able}, Recovery{Node: "n2"}},
		{"no restic", nothing, []*Candidate{lost, {Name: "n2"}}, Recovery{Why: "its backup cannot be restored: of the other nodes 0 of 1 nodes fit: 1 cannot read backups (needs restic)"}},
		{"no other node", nothing, []*Candidate{lost}, Recovery{Why: "there is no other node that can restore the backup"}},
		{"all are lost", nothing, []*Candidate{lost, {Name: "n2", Unfit: NotReady, Restores: true}}, Recovery{Why: "all 2 nodes are lost, so nothing is restored"}},
		{
			"no backup yet", func(p *carav1.Project) { p.Status.Backup = nil },
			[]*Candidate{lost, able},
			Recovery{Why: "and waits until the node returns: there is no backup of volumes db, media yet, and the data is on node n1"},
		},
		{
			"a volume without a backup", func(p *carav1.Project) { p.Status.Backup.Snapshots = p.Status.Backup.Snapshots[:1] },
			[]*Candidate{lost, able},
			Recovery{Why: "and waits until the node returns: there is no backup of volumes media yet, and the data is on node n1"},
		},
		{"a failed update", func(p *carav1.Project) {
			p.Status.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonUpdateFailed}}
		}, []*Candidate{lost, able}, Recovery{Why: staysUpdateFailed}},
		{
			"in progress", func(p *carav1.Project) { p.Status.Move = &carav1.Move{To: "n2", Restore: &carav1.Restore{}} },
			[]*Candidate{lost, able},
			Recovery{Why: "its data is being restored on node n2"},
		},
		{"in progress on the lost node", func(p *carav1.Project) { p.Status.Move = &carav1.Move{To: "n1", Restore: &carav1.Restore{}} }, []*Candidate{lost, able}, Recovery{Node: "n2"}},
		{
			"requested", func(p *carav1.Project) { p.Status.Move = &carav1.Move{Restore: &carav1.Restore{}} },
			[]*Candidate{lost, able},
			Recovery{Why: "its data is being restored"},
		},
	} {
		p := backedUp(withData(running("p", "n1", ""), "n1", "db", "media"))
		test.change(p)
		d, err := demand(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := Recover(p, d, test.nodes, Spread); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestRestoredDemand(t *testing.T) {
	p := withData(withData(running("p", "n1", "1Gi"), "n1", "db", "media"), "n2", "files")
	d, err := demand(p)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.restored(&carav1.Restore{Volumes: []string{"db", "files"}}); !got.Restore || got.Memory != gib || got.Idle || len(got.Data) != 1 || got.Data[0].String() != "n1 (volume media)" {
		t.Errorf("of two volumes: %+v", got)
	}
	if got := d.restored(&carav1.Restore{Volumes: []string{"db"}, As: "q"}); !got.Restore || got.Memory != 0 || !got.Idle || len(got.Data) != 0 {
		t.Errorf("for another project: %+v", got)
	}
	if len(d.Data) != 2 || len(d.Data[0].Volumes) != 2 {
		t.Errorf("the demand itself is %+v now", d)
	}
}

func TestHoldingOfARestore(t *testing.T) {
	for _, test := range []struct {
		phase, at, to, as string
		want              placement
	}{
		{api.PhaseRunning, "n1", "n1", "", placement{node: "n1", memory: gib, subnets: 1, projects: 1}},
		{api.PhaseRunning, "n1", "n2", "", placement{node: "n1", to: "n2", memory: gib, subnets: 1, projects: 1}},
		{api.PhaseFailed, "n1", "n2", "", placement{node: "n1", to: "n2", stopped: true, memory: gib, subnets: 1, projects: 1}},
		{api.PhasePending, "", "n2", "", placement{node: "n2", memory: gib, subnets: 1, projects: 1}},
		{api.PhaseRunning, "n1", "n2", "q", placement{node: "n1", memory: gib, subnets: 1, projects: 1}},
		{api.PhasePending, "", "n2", "q", placement{}},
		{api.PhaseFailed, "n1", "n2", "q", placement{node: "n1", subnets: 1}},
	} {
		p := running("p", test.at, "1Gi")
		p.Status.Phase, p.Status.Move = test.phase, &carav1.Move{Step: api.MoveRestoring, To: test.to, Restore: &carav1.Restore{As: test.as}}
		if got := holding(p); got != test.want {
			t.Errorf("%s on %q, restored on %s as %q: %+v, want %+v", test.phase, test.at, test.to, test.as, got, test.want)
		}
	}
}

// wantScheduled checks that the condition Scheduled of a project contains a text.
func wantScheduled(t *testing.T, w *fakeServer, name, text string) {
	t.Helper()
	if c := api.FindCondition(w.project(name).GetStatus().GetConditions(), api.CondScheduled); !strings.Contains(c.GetMessage(), text) {
		t.Errorf("the condition of %s says %q, want %q", name, c.GetMessage(), text)
	}
}

// TestALostNodesDataIsRestored after the wait that the project asks for. The condition says so before, and names the backup.
func TestALostNodesDataIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		p := backedUp(withData(running("p", "n1", "1Gi"), "n1", "db"))
		p.Spec.RescheduleAfter = "5m"
		w.Put(node("n1", "8Gi"), restorer(node("n2", "8Gi")), restorer(node("n3", "512Mi")), p)
		defer live(w, "n2", "n3")()
		silence := live(w, "n1")
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		silence()
		pass(time.Minute)
		wantScheduled(t, w, "p", "and waits for the node for 5m0s; then another node restores the backup of 1999-12-31T19:00:00Z")
		if n := w.restores.Load(); n > 0 {
			t.Errorf("%d restores before the wait was over", n)
		}
		pass(5 * time.Minute)
		wantScheduled(t, w, "p", "its data is being restored on node n2; the backup of 1999-12-31T19:00:00Z (5h before node n1 was lost)")
		if got := w.step("p"); got != "Restoring n2" {
			t.Fatalf("the restore is %q", got)
		}
		writes := w.writes
		pass(time.Hour)
		if w.writes != writes {
			t.Errorf("%d writes although nothing changed", w.writes-writes)
		}
		w.restored("p", "")
		pass(time.Minute)
		wantPhase(t, w, "p", api.PhaseScheduled, "n2", "")
		if n := w.restores.Load(); n != 1 {
			t.Errorf("%d restores", n)
		}
		stop()
	})
}

// TestNothingIsRestoredForALostNode without the project's consent, without a backup, or with rescheduleAfter: never.
func TestNothingIsRestoredForALostNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		waits, none, never := backedUp(withData(running("waits", "n1", ""), "n1", "db")), backedUp(withData(running("none", "n1", ""), "n1", "db")), backedUp(withData(running("never", "n1", ""), "n1", "db"))
		waits.Spec.OnNodeLoss, none.Status.Backup, never.Spec.RescheduleAfter = "", nil, api.Never
		w.Put(restorer(node("n1", "8Gi")), restorer(node("n2", "8Gi")), waits, none, never)
		defer live(w, "n2")()
		silence := live(w, "n1")
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		silence()
		pass(time.Hour)
		wantScheduled(t, w, "waits", "; the project stays, and waits until the node returns: its data is on n1 (volume db)")
		wantScheduled(t, w, "none", "there is no backup of volumes db yet")
		wantScheduled(t, w, "never", "because rescheduleAfter is never")
		if n := w.restores.Load(); n > 0 {
			t.Errorf("%d restores", n)
		}
		stop()
	})
}

// TestAFailedRestoreIsTriedAgainLater and later.
func TestAFailedRestoreIsTriedAgainLater(t *testing.T) {
	for _, refused := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeServer()
			w.Put(node("n1", "8Gi"), restorer(node("n2", "8Gi")), backedUp(withData(running("p", "n1", ""), "n1", "db")))
			if refused {
				w.refuse = api.BadState("the repository is gone")
			}
			defer live(w, "n2")()
			silence := live(w, "n1")
			stop := run(t, w, Config{})
			pass(30 * time.Second)
			silence()
			pass(2 * time.Minute)
			for n := int32(1); n <= 3; n++ {
				if got := w.restores.Load(); got != n {
					t.Fatalf("%d restores, want %d", got, n)
				}
				if !refused {
					w.restored("p", "the repository is gone")
					pass(time.Second)
				}
				wantScheduled(t, w, "p", "the repository is gone; the restore of the backup of 1999-12-31T19:00:00Z")
				pass(time.Minute<<(n-1) - 30*time.Second)
				if got := w.restores.Load(); got > n+1 || got > n && !refused {
					t.Fatalf("%d restores, want %d", got, n)
				}
				pass(40 * time.Second)
			}
			stop()
		})
	}
}

// cancelled ends a restore as a person's request does.
func (w *fakeServer) cancelled(name string) {
	w.change(name, func(p *carav1.Project) {
		p.Status.Move, p.Status.RestoreDeclined = nil, timestamppb.Now()
		w.saysRestoring(p, api.StatusFalse, api.ReasonRestoreCancelled, "cancelled by user/ann")
	})
}

// TestACancelledRestoreIsNotRepeated for the same loss of the node, but for the next one.
func TestACancelledRestoreIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), restorer(node("n2", "8Gi")), backedUp(withData(running("p", "n1", ""), "n1", "db")))
		defer live(w, "n2")()
		silence := live(w, "n1")
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		silence()
		pass(2 * time.Minute)
		if got := w.step("p"); got != "Restoring n2" {
			t.Fatalf("the restore is %q", got)
		}
		w.cancelled("p")
		pass(3 * time.Hour)
		if n := w.restores.Load(); n != 1 || w.step("p") != "" {
			t.Errorf("%d restores, the last is %q", n, w.step("p"))
		}
		wantScheduled(t, w, "p", "because a restore was cancelled at ")
		wantScheduled(t, w, "p", "caractrl restore p restores the backup of 1999-12-31T19:00:00Z")
		silence = live(w, "n1")
		pass(time.Minute)
		silence()
		pass(2 * time.Minute)
		if n := w.restores.Load(); n != 2 {
			t.Errorf("%d restores after the next loss, want 2", n)
		}
		stop()
	})
}

func TestDeclined(t *testing.T) {
	at := func(hour int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2000, 1, 1, hour, 0, 0, 0, time.UTC))
	}
	lost := node("n1", "8Gi")
	lost.Status.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusFalse, LastTransitionTime: at(5)}}
	for name, tt := range map[string]struct {
		at   *timestamppb.Timestamp
		lost *carav1.Node
		want bool
	}{
		"nobody cancelled":                   {nil, lost, false},
		"nobody cancelled, node deleted":     {nil, nil, false},
		"cancelled before the loss":          {at(4), lost, false},
		"cancelled when the node was lost":   {at(5), lost, true},
		"cancelled after the loss":           {at(6), lost, true},
		"cancelled, and the node is deleted": {at(4), nil, true},
	} {
		p := &carav1.Project{Status: &carav1.ProjectStatus{RestoreDeclined: tt.at}}
		if got := declined(p, tt.lost); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestARestoreIsCancelledWhenTheNodeReturns: the project continues with its newest data.
func TestARestoreIsCancelledWhenTheNodeReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		theirs := backedUp(withData(running("theirs", "n2", ""), "n2", "db"))
		theirs.Status.Move = &carav1.Move{Step: api.MoveRestoring, To: "n2", Actor: "user/admin", Restore: &carav1.Restore{Volumes: []string{"db"}}}
		w.Put(node("n1", "8Gi"), restorer(node("n2", "8Gi")), backedUp(withData(running("p", "n1", ""), "n1", "db")), theirs)
		defer live(w, "n2")()
		silence := live(w, "n1")
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		silence()
		pass(2 * time.Minute)
		if got := w.step("p"); got != "Restoring n2" {
			t.Fatalf("the restore is %q", got)
		}
		defer live(w, "n1")()
		pass(time.Second)
		if got := w.step("p"); got != "" {
			t.Errorf("the restore is %q", got)
		}
		if c := api.FindCondition(w.project("p").Status.Conditions, api.CondRestoring); c.GetMessage() != "node n1 is back, and it has the data of project p" {
			t.Errorf("the condition is %v", c)
		}
		wantScheduled(t, w, "p", "stays on n1")
		if got := w.step("theirs"); got != "Restoring n2" {
			t.Errorf("an operator's restore is %q", got)
		}
		stop()
	})
}

// TestARestoreMovesOnWhenItsNodeIsLostToo.
func TestARestoreMovesOnWhenItsNodeIsLostToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), restorer(node("n2", "8Gi")), restorer(node("n3", "512Mi")), backedUp(withData(running("p", "n1", "1Gi"), "n1", "db")))
		defer live(w, "n3")()
		first, second := live(w, "n1"), live(w, "n2")
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		first()
		pass(2 * time.Minute)
		if got := w.step("p"); got != "Restoring n2" {
			t.Fatalf("the restore is %q", got)
		}
		second()
		pass(45 * time.Second)
		if got := w.step("p"); got != "Restoring n2" {
			t.Errorf("before the wait is over, the restore is %q", got)
		}
		pass(time.Minute)
		if c := api.FindCondition(w.project("p").Status.Conditions, api.CondRestoring); c.GetMessage() != "node n2 is lost, too" {
			t.Errorf("the condition is %v", c)
		}
		w.Put(restorer(node("n3", "8Gi")))
		pass(2 * time.Minute)
		if got := w.step("p"); got != "Restoring n3" {
			t.Errorf("the restore is %q", got)
		}
		stop()
	})
}

// TestAPendingProjectWaitsForItsRestore and is not started on empty volumes. One whose data was on a node that is deleted is
// restored without a wait.
func TestAPendingProjectWaitsForItsRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		empty := pending("empty", "")
		empty.Status.Move = &carav1.Move{Step: api.MoveRestoring, To: "n2", Restore: &carav1.Restore{Volumes: []string{"db"}}}
		w.Put(restorer(node("n2", "8Gi")), empty, backedUp(withData(pending("p", ""), "gone", "db")))
		defer live(w, "n2")()
		stop := run(t, w, Config{})
		pass(time.Minute)
		wantScheduled(t, w, "empty", "its data is being restored on node n2")
		if got := w.step("p"); got != "Restoring n2" {
			t.Fatalf("the restore is %q", got)
		}
		wantScheduled(t, w, "p", "the project waits, its data is being restored on node n2; the backup of 1999-12-31T19:00:00Z")
		w.restored("p", "")
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n2", "")
		stop()
	})
}

// TestARequestedRestoreGetsItsNode: the scheduler chooses one with restic and room, or says why there is none.
func TestARequestedRestoreGetsItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		asked := func(name, to string) *carav1.Project {
			p := withData(running(name, "n1", "1Gi"), "n1", "db")
			p.Status.Phase = api.PhaseFailed
			p.Status.Move = &carav1.Move{Step: api.MoveRequested, To: to, Actor: "user/admin", Restore: &carav1.Restore{Volumes: []string{"db"}}}
			return p
		}
		w.Put(restorer(node("n1", "1Gi")), node("n2", "8Gi"), restorer(node("n3", "1Gi")), asked("a", "n2"), asked("b", ""), asked("c", ""), asked("d", "n1"))
		defer live(w, "n1", "n2", "n3")()
		stop := run(t, w, Config{})
		pass(time.Minute)
		if c := api.FindCondition(w.project("a").Status.Conditions, api.CondMoving); c.GetMessage() != "project a does not fit node n2: cannot read backups (needs restic)" {
			t.Errorf("the condition of a is %v", c)
		}
		got := map[string]int{}
		for _, name := range []string{"b", "c", "d"} {
			got[w.step(name)]++
		}
		if got["Restoring n1"] != 1 || got["Restoring n3"] != 1 || got[""] != 1 { // each node has room for one
			t.Errorf("the restores are %v", got)
		}
		stop()
	})
}
