package scheduler

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// withData gives a project Managed volumes whose data is on a node.
func withData(p *carav1.Project, node string, volumes ...string) *carav1.Project {
	for _, v := range volumes {
		p.Spec.Volumes = append(p.Spec.Volumes, &carav1.ProjectVolume{Name: v, Type: api.VolumeManaged})
		p.Status.Volumes = append(p.Status.Volumes, &carav1.VolumeUse{Name: v, Uid: v, Node: node, Made: true})
	}
	return p
}

func withHost(p *carav1.Project, host string) *carav1.Project {
	p.Spec.Volumes = append(p.Spec.Volumes, &carav1.ProjectVolume{Name: "files", Type: api.VolumeHost, Host: host})
	return p
}

func offering(n *carav1.Node, host string) *carav1.Node {
	n.Status.Info.HostVolumes = []*carav1.HostVolume{{Name: host}}
	return n
}

func TestDemandOfData(t *testing.T) {
	p := withHost(withData(withData(pending("p", ""), "n2", "media"), "n1", "db", "cache"), "films")
	p.Status.Volumes = append(p.Status.Volumes,
		&carav1.VolumeUse{Name: "new", Uid: "new"}, &carav1.VolumeUse{Name: "unreported", Uid: "unreported", Node: "n3"},
		&carav1.VolumeUse{Name: "another", Uid: "another", Node: "n1"})
	d, err := demand(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]NodeData{{"n1", []string{"db", "cache"}}, {"n2", []string{"media"}}}, d.Data); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"films"}, d.HostVolumes); diff != "" {
		t.Error(diff)
	}
}

func TestAProjectGoesToItsData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "8Gi"), node("n3", "1Gi"), withData(pending("p", "1Gi"), "n3", "db"), withData(pending("big", "2Gi"), "n3", "db"))
		defer live(w, "n1", "n2", "n3")()
		stop := run(t, w, Config{})
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n3", "")
		wantPhase(t, w, "big", api.PhasePending, "",
			"0 of 3 nodes fit: 2 did not have the project's data, 1 insufficient memory; the data is on n3 (volume db)")
		w.Put(node("n3", "4Gi"))
		pass(time.Second)
		wantPhase(t, w, "big", api.PhaseScheduled, "n3", "")
		stop()
	})
}

// TestAProjectWaitsForTheLostNodeWithItsData for any time, says so without a delay, and continues unchanged when the node
// returns. A project without data moves in the meantime.
func TestAProjectWaitsForTheLostNodeWithItsData(t *testing.T) {
	for _, after := range []string{"", "never"} {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeServer()
			p := withData(running("p", "n1", "1Gi"), "n1", "db")
			p.Spec.RescheduleAfter = after
			failed := withData(running("failed", "n1", ""), "n1", "db")
			failed.Status.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonUpdateFailed}}
			w.Put(node("n1", "8Gi"), node("n2", "8Gi"), p, failed, running("q", "n1", "1Gi"))
			defer live(w, "n2")()
			silence := live(w, "n1")
			stop := run(t, w, Config{})
			pass(30 * time.Second)
			silence()
			pass(30 * time.Second)
			for _, name := range []string{"p", "failed"} {
				c := api.FindCondition(w.project(name).GetStatus().GetConditions(), api.CondScheduled)
				if c.GetStatus() != api.StatusTrue || c.GetReason() != api.ReasonNodeLost || !strings.HasPrefix(c.GetMessage(), "node n1 is lost: ") ||
					!strings.HasSuffix(c.GetMessage(), "; the project stays, and waits until the node returns: its data is on n1 (volume db)") {
					t.Errorf("%s: the condition is %v", name, c)
				}
			}
			pass(time.Hour)
			wantPhase(t, w, "p", api.PhaseRunning, "n1", "")
			wantPhase(t, w, "q", api.PhaseScheduled, "n2", "")
			defer live(w, "n1")()
			pass(time.Second)
			wantPhase(t, w, "p", api.PhaseRunning, "n1", "stays on n1")
			if e := w.project("p").GetStatus().GetEpoch(); e != 1 {
				t.Errorf("epoch %d, want 1", e)
			}
			stop()
		})
	}
}

func TestADrainLeavesData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "8Gi"), withData(running("a", "n1", ""), "n1", "db", "media"), running("b", "n1", ""))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		w.Put(draining(node("n1", "8Gi"), 1))
		pass(time.Minute)
		wantPhase(t, w, "a", api.PhaseRunning, "n1", "node n1 is draining, and the project stays: its data is on n1 (volumes db, media)")
		wantPhase(t, w, "b", api.PhaseScheduled, "n2", "")
		w.becomes("b", api.PhaseRunning)
		pass(time.Minute)
		if w.isDrained("n1") {
			t.Error("drained with a project on it")
		}
		stop()
	})
}

// TestTheNodeWithTheDataIsDeleted: the project waits for that node and for no other.
func TestTheNodeWithTheDataIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "8Gi"), withData(running("p", "n1", ""), "n1", "db"))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		pass(time.Second)
		w.mu.Lock()
		w.put(true, w.nodes["n1"])
		w.mu.Unlock()
		pass(time.Hour)
		wantPhase(t, w, "p", api.PhasePending, "", "0 of 1 nodes fit: 1 did not have the project's data; the data is on n1 (volume db), "+
			"and the cluster has no node n1: let that machine join again under this name, or give up the data and start with an empty volume (caractrl recreate volume p.db)")
		w.Put(node("n1", "8Gi"))
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n1", "")
		stop()
	})
}

// TestDataKeepsAProjectThatHasOutgrownItsNode, and brings a project to the node with its data.
func TestDataKeepsAProjectThatHasOutgrownItsNode(t *testing.T) {
	update := func(p *carav1.Project) { p.Status.Phase = api.PhaseScheduled }
	tests := map[string]struct {
		project     *carav1.Project
		then        func(p *carav1.Project)
		node, wants string
	}{
		"it needs more memory": {withData(running("p", "n1", "1Gi"), "n1", "db"), func(p *carav1.Project) {
			update(p)
			p.Spec.Services[0].Resources.Requests.Memory = "3Gi"
		}, "n1", "project p does not fit node n1 any more: insufficient memory; the project stays, its data is on n1 (volume db)"},
		"an update mounts data of another node": {running("p", "n1", "1Gi"), func(p *carav1.Project) {
			update(p)
			withData(p, "n2", "db")
		}, "n2", ""},
		"that node is cordoned": {running("p", "n1", "1Gi"), func(p *carav1.Project) {
			update(p)
			withData(p, "n3", "db")
		}, "n1", "node n1 does not have all data of project p; of the others 0 of 2 nodes fit: 1 did not have the project's data, 1 cordoned; the data is on n3 (volume db)"},
		"an update mounts data of a second node": {withData(running("p", "n1", "1Gi"), "n1", "db"), func(p *carav1.Project) {
			update(p)
			withData(p, "n2", "media")
		}, "n1", "node n1 does not have all data of project p; the project stays, the data is on n1 (volume db) and n2 (volume media), but a project runs on one node: " +
			"remove the volumes of the other nodes from the manifest; their data is kept until you delete it (caractrl delete volume p.NAME)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeServer()
				cordoned := node("n3", "8Gi")
				cordoned.Spec = &carav1.NodeSpec{Unschedulable: true}
				w.Put(node("n1", "2Gi"), node("n2", "8Gi"), cordoned, tt.project)
				defer live(w, "n1", "n2", "n3")()
				stop := run(t, w, Config{})
				pass(time.Second)
				w.change("p", tt.then)
				pass(time.Minute)
				wantPhase(t, w, "p", api.PhaseScheduled, tt.node, tt.wants)
				stop()
			})
		})
	}
}

// TestRoomIsFoundAgainWhereTheDataIs when another project leaves the node.
func TestRoomIsFoundAgainWhereTheDataIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "2Gi"), withData(running("p", "n1", "512Mi"), "n1", "db"), running("other", "n1", "1Gi"))
		defer live(w, "n1")()
		stop := run(t, w, Config{})
		pass(time.Second)
		w.change("p", func(p *carav1.Project) {
			p.Status.Phase, p.Spec.Services[0].Resources.Requests.Memory = api.PhaseScheduled, "2Gi"
		})
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n1",
			"project p does not fit node n1 any more: insufficient memory; the project stays, its data is on n1 (volume db)")
		w.becomes("other", api.PhaseTerminated)
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n1", "stays on n1")
		stop()
	})
}

// TestAHostVolumeThatIsNoLongerOffered: a project that runs stays, even if another node offers the host volume. A project
// that needs it to start goes to that node.
func TestAHostVolumeThatIsNoLongerOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(offering(node("n1", "8Gi"), "films"), offering(node("n2", "8Gi"), "films"), withHost(running("p", "n1", ""), "films"))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		pass(time.Second)
		w.Put(node("n1", "8Gi"))
		pass(time.Hour)
		wantPhase(t, w, "p", api.PhaseRunning, "n1",
			"node n1 does not offer all host volumes of project p any more (cara-agent --host-volume); the project stays")
		w.Put(offering(node("n1", "8Gi"), "films"))
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseRunning, "n1", "stays on n1")
		w.Put(node("n1", "8Gi"))
		pass(time.Second)
		w.becomes("p", api.PhaseScheduled)
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n2", "")
		stop()
	})
}
