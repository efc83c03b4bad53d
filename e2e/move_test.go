package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// counting is a project that appends the next number to a file in its Managed volume, again and again. A gap or a repetition
// shows data that was lost, or a second copy of the project.
func counting(name string) string {
	return project(name, `
services:
- name: counter
  image: `+testimage.Busybox+`
  command: [sh, -c, "n=$(tail -n 1 /data/log 2>/dev/null); while :; do n=$((n+1)); echo $n >>/data/log; sleep 0.05; done"]
  init: true
  stopGracePeriod: 1s
  volumeMounts: [{name: data, mountPath: /data}]
volumes:
- name: data
  type: Managed
`)
}

// countsOn wants the project to run on a node and nowhere else, and its numbers to be complete. It returns the last number.
func (w *testCluster) countsOn(name, node string, hosts map[string]string) (last string) {
	w.Helper()
	w.until(name, "runs on "+node, func(p *carav1.Project) bool {
		return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == node && p.GetStatus().GetMove() == nil
	})
	ctx, cancel := w.patience()
	defer cancel()
	for other, host := range hosts {
		if other != node {
			w.must(w.AwaitNothing(ctx, host, name))
		}
	}
	var r testcluster.Result
	w.must(testcluster.WaitFor(ctx, "the numbers of "+name, func(ctx context.Context) (err error) {
		r, err = w.Ctl(ctx, "", "exec", name, "--", "awk", "$1 != NR {print \"gap in line\", NR, $0; exit} END {print NR}", "/data/log")
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
		return err
	}))
	if strings.Contains(r.Stdout, "gap") || strings.TrimSpace(r.Stdout) == "0" {
		w.Errorf("the numbers of %s on %s: %s", name, node, r.Stdout)
	}
	return strings.TrimSpace(r.Stdout)
}

// TestMoveSurvivesKills: the server, the old node's agent or the new node's agent is killed in a step of a move. Each time
// the move continues after the restart, the data is complete, one copy of the project runs, and the old data is retained.
func TestMoveSurvivesKills(t *testing.T) {
	w, second := twoNodes(t)
	hosts := map[string]string{"n1": w.engines[0], "n2": second.Host}
	for _, host := range hosts {
		testdocker.Images(t, host, testimage.Busybox)
	}
	name := w.name("counts")
	volume := api.VolumeName(name, "data")
	w.apply(counting(name))
	at := w.until(name, "runs", testcluster.Runs).GetStatus().GetNodeRef()
	w.countsOn(name, at, hosts)
	if r := w.ctl("", "exec", name, "--", "sh", "-c", "mkdir /data/files; for i in $(seq 300); do head -c 100000 /dev/urandom >/data/files/$i; done"); r.Code != 0 {
		t.Fatalf("fill: %+v", r)
	}
	for _, victim := range []string{"server", "from", "to"} {
		for _, step := range []string{api.MoveCopying, api.MoveSwitching} {
			to := map[string]string{"n1": "n2", "n2": "n1"}[at]
			w.Logf("kill %s while %s from %s to %s", victim, step, at, to)
			old := w.volumeIs(volume, api.VolumeInUse)
			if r := w.ctl("", "move", name, "--to", to); r.Code != 0 {
				t.Fatalf("move: %+v", r)
			}
			w.until(name, "is "+step, func(p *carav1.Project) bool {
				return p.GetStatus().GetMove().GetStep() == step || p.GetStatus().GetNodeRef() == to
			})
			w.killAndRestart(map[string]string{"server": "", "from": at, "to": to}[victim])
			w.countsOn(name, to, hosts)
			kept := w.volumeIs(api.AsideName(name, "data", old.GetMetadata().GetUid()), api.VolumeRetained)
			if kept.GetStatus().GetNode() != at || w.volumeIs(volume, api.VolumeInUse).GetStatus().GetNode() != to {
				t.Errorf("the old data is %v", kept)
			}
			if r := w.ctl("", "delete", "volume", kept.GetMetadata().GetName(), "--yes", "--wait"); r.Code != 0 {
				t.Errorf("delete the old data: %+v", r)
			}
			at = to
		}
	}
	if r := w.ctl("", "exec", name, "--", "sh", "-c", "ls /data/files | wc -l"); strings.TrimSpace(r.Stdout) != "300" {
		t.Errorf("the project has %s files (%s), want 300", r.Stdout, r.Stderr)
	}
}

// killAndRestart kills the agent of a node, or the server if node is "", and starts it again.
func (w *testCluster) killAndRestart(node string) {
	w.Helper()
	if node == "" {
		w.must(w.Server.Kill())
		ctx, cancel := w.patience()
		defer cancel()
		w.must(w.StartServer(ctx))
		return
	}
	w.must(w.Agents[node].Kill())
	w.must(w.RestartAgent(node))
	w.ready(node)
}

// TestDrainMovesData: a drain leaves data where it is, unless it is asked to move it. A move that is cancelled leaves the
// project on its node.
func TestDrainMovesData(t *testing.T) {
	w, second := twoNodes(t)
	hosts := map[string]string{"n1": w.engines[0], "n2": second.Host}
	for _, host := range hosts {
		testdocker.Images(t, host, testimage.Busybox)
	}
	ctl := func(code int, args ...string) testcluster.Result {
		t.Helper()
		r := w.ctl("", args...)
		if r.Code != code {
			t.Fatalf("caractrl %v: exit code %d, want %d\n%s%s", args, r.Code, code, r.Stdout, r.Stderr)
		}
		return r
	}
	ctl(0, "cordon", "n1")
	var names []string
	for _, short := range []string{"a", "b"} {
		names = append(names, w.name(short))
		w.apply(counting(w.name(short)))
	}
	for _, name := range names {
		w.countsOn(name, "n2", hosts)
	}
	refused := ctl(1, "move", names[0], "--to", "n1")
	w.says("a move to a cordoned node", refused.Stderr, "caractrl uncordon n1")
	ctl(0, "uncordon", "n1")
	ctl(4, "drain", "n2", "--timeout", "1s")
	for _, name := range names {
		w.until(name, "says why it stays", func(p *carav1.Project) bool {
			return strings.Contains(api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled).GetMessage(), "its data is on n2")
		})
	}
	r := ctl(0, "drain", "n2", "--move-data", "--timeout", patience.String())
	w.says("caractrl drain", r.Stdout, "node/n2 drained")
	for _, name := range names {
		w.says("caractrl drain", r.Stderr, "project/"+name+" moves to n1 with its data: ", "project/"+name+" moved to n1")
		w.countsOn(name, "n1", hosts)
	}
	w.says("the volumes", ctl(0, "get", "volumes", "--node", "n2", "--state", "Retained").Stdout, names[0]+".data.", names[1]+".data.")
	ctl(0, "uncordon", "n2")
	ctl(0, "move", names[0], "--to", "n2")
	w.until(names[0], "is being copied", func(p *carav1.Project) bool {
		return p.GetStatus().GetMove().GetStep() != api.MoveRequested || p.GetStatus().GetNodeRef() == "n2"
	})
	node := "n1"
	if r := w.ctl("", "move", names[0], "--cancel"); r.Code != 0 {
		w.says("a cancel that came too late", r.Stderr, "is not moving: it is on node n2")
		node = "n2"
	}
	w.countsOn(names[0], node, hosts)
}
