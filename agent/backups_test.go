package agent_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testrestic"
)

// backedUp is an agent over the engine in memory, with data of project p on disk and the real restic. Its script logs the begin
// and the end of each run, and waits in the second pass while the file gate exists, and in a restore while the file restore-gate exists.
type backedUp struct {
	*faked
	dir string // with the volumes, the repository and the script
	// shared is a directory of the agent that the script can write to, although it is confined: log, the gates and waits are there.
	shared string
}

func newBackedUp(t *testing.T) *backedUp {
	t.Helper()
	testneed.NotShort(t)
	restic := testneed.Program(t, "restic", "restic")
	b := &backedUp{faked: newFaked(t), dir: t.TempDir()}
	b.shared = filepath.Join(b.cfg.DataDir, "backup", "cache")
	b.engine.MountVolumes(b.dir)
	b.write(t, filepath.Join(b.dir, dataName("p", "data"), "_data", "rows"), "1")
	b.cfg.BackupDirs, b.cfg.Restic = []string{b.dir}, filepath.Join(b.dir, "restic")
	script := fmt.Sprintf(`#!/bin/bash
shared=%[1]s
echo "begin $$" >>$shared/log
trap 'stop=1; kill $child 2>/dev/null' INT TERM
await() { while [ -e $shared/$1 ] && [ -z "$stop" ]; do touch $shared/$2; sleep 0.01; done; [ -z "$stop" ] || exit 130; }
case "$*" in *--parent*) await gate waits;; esac
case "$1" in restore)
  echo "$@" >>$shared/restores
  await restore-gate restore-waits;;
snapshots)
  if [ -e $shared/locked ]; then echo "repository is already locked by PID 1" >&2; exit 1; fi;;
esac
%[2]s "$@" & child=$!
wait $child; code=$?
echo "end $$" >>$shared/log
exit $code
`, b.shared, restic)
	if err := os.WriteFile(b.cfg.Restic, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	testrestic.New(t, filepath.Join(b.dir, "repository"))
	b.secrets = map[string]map[string][]byte{"p": {
		"s/repository": []byte(filepath.Join(b.dir, "repository")), "s/password": []byte(testrestic.Password),
	}}
	spec := withData("web")
	spec.Backup = &carav1.Backup{SecretRef: "s"}
	b.up(t, spec)
	return b
}

func (b *backedUp) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b *backedUp) exists(name string) bool {
	_, err := os.Stat(filepath.Join(b.shared, name))
	return err == nil
}

// ask requests a backup.
func (b *backedUp) ask(token string) {
	b.edit("p", func(p *carav1.Project) { p.Status.BackupToken = token })
}

// ended waits for the end of the backup with a token.
func (b *backedUp) ended(t *testing.T, token, state string) *carav1.BackupStatus {
	t.Helper()
	p := b.wait(t, "p", func(p *carav1.Project) bool {
		s := p.GetStatus().GetBackup()
		return s.GetToken() == token && s.GetState() != "" && s.GetState() != api.BackupRunning
	})
	if s := p.GetStatus().GetBackup(); s.GetState() != state {
		t.Fatalf("the backup has %s: %s: %s", s.GetState(), s.GetReason(), s.GetMessage())
	}
	return p.GetStatus().GetBackup()
}

func (b *backedUp) state(t *testing.T) string {
	t.Helper()
	for _, c := range b.containers(t) {
		if c.Labels[api.LabelProject] == "p" {
			return c.State
		}
	}
	return "none"
}

func TestBackupByRequest(t *testing.T) {
	b := newBackedUp(t)
	b.ask("t1")
	s := b.ended(t, "t1", api.BackupSucceeded)
	if len(s.GetSnapshots()) != 1 || s.GetSnapshots()[0].GetVolume() != "data" || s.GetPause().AsDuration() <= 0 || s.GetLastSuccess() == nil {
		t.Errorf("status %v", s)
	}
	waitUntil(t, func() bool { return b.told(api.ReasonBackupSucceeded) == 1 })
	if got := b.state(t); got != engine.StateRunning {
		t.Errorf("the container is %s", got)
	}
	err := filepath.WalkDir(b.cfg.DataDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(testrestic.Password)) {
			t.Errorf("the password is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	b.stop() // the next agent does not repeat it
	b.run(t)
	spec := withData("web:2")
	spec.Backup = &carav1.Backup{SecretRef: "s"}
	b.put("p", spec)
	b.wait(t, "p", func(p *carav1.Project) bool {
		return p.GetStatus().GetObservedGeneration() == p.GetMetadata().GetGeneration() && phase(api.PhaseRunning)(p)
	})
	if b.told(api.ReasonBackupSucceeded) != 1 {
		t.Error("the next agent made the backup again")
	}
}

// TestBackupBlocked: a project on a node without restic says so before a backup is due, until restic is installed.
func TestBackupBlocked(t *testing.T) {
	b := newBackedUp(t)
	b.ask("t1")
	b.ended(t, "t1", api.BackupSucceeded)
	b.stop()
	away := b.cfg.Restic + ".away"
	if err := os.Rename(b.cfg.Restic, away); err != nil {
		t.Fatal(err)
	}
	b.run(t)
	blocked := func(p *carav1.Project) *carav1.Condition {
		return api.FindCondition(p.GetStatus().GetConditions(), api.CondBackupBlocked)
	}
	p := b.wait(t, "p", func(p *carav1.Project) bool { return blocked(p) != nil })
	if c := blocked(p); c.GetReason() != api.ReasonResticMissing || !strings.Contains(c.GetMessage(), "install the package restic") {
		t.Errorf("condition %v", c)
	}
	if s := p.GetStatus().GetBackup(); s.GetState() != api.BackupSucceeded {
		t.Errorf("the last backup is %s", s.GetState())
	}
	if err := os.Rename(away, b.cfg.Restic); err != nil {
		t.Fatal(err)
	}
	b.ask("t2")
	b.ended(t, "t2", api.BackupSucceeded)
	b.wait(t, "p", func(p *carav1.Project) bool { return blocked(p) == nil })
}

// TestThePausedProjectIsLeftAlone: the worker does not resume what a backup has paused, while it works for other projects.
func TestThePausedProjectIsLeftAlone(t *testing.T) {
	b := newBackedUp(t)
	b.write(t, filepath.Join(b.shared, "gate"), "")
	b.ask("t1")
	waitUntil(t, func() bool { return b.exists("waits") })
	b.put("q", services("job"))
	b.wait(t, "q", phase(api.PhaseRunning))
	before := b.engine.Calls("ListContainers")
	waitUntil(t, func() bool { return b.engine.Calls("ListContainers") > before+10 })
	if got := b.state(t); got != engine.StatePaused {
		t.Errorf("the container is %s", got)
	}
	if err := os.Remove(filepath.Join(b.shared, "gate")); err != nil {
		t.Fatal(err)
	}
	b.ended(t, "t1", api.BackupSucceeded)
	waitUntil(t, func() bool { return b.state(t) == engine.StateRunning })
}

// TestTheEndOfAProjectEndsItsBackup: a project that ends while it is paused is removed, and does not wait for the backup.
func TestTheEndOfAProjectEndsItsBackup(t *testing.T) {
	b := newBackedUp(t)
	b.write(t, filepath.Join(b.shared, "gate"), "")
	b.ask("t1")
	waitUntil(t, func() bool { return b.exists("waits") })
	b.terminate("p")
	b.wait(t, "p", func(p *carav1.Project) bool { return p == nil })
	if got := b.state(t); got != "none" {
		t.Errorf("the container is %s", got)
	}
}

// TestBackupsNeverOverlap: a request during a backup causes another one after it.
func TestBackupsNeverOverlap(t *testing.T) {
	b := newBackedUp(t)
	b.write(t, filepath.Join(b.shared, "gate"), "")
	b.ask("t1")
	waitUntil(t, func() bool { return b.exists("waits") })
	b.ask("t2")
	b.edit("p", func(p *carav1.Project) { p.Status.BackupToken = "t3" })
	b.put("q", services("job"))
	b.wait(t, "q", phase(api.PhaseRunning))
	if err := os.Remove(filepath.Join(b.shared, "gate")); err != nil {
		t.Fatal(err)
	}
	b.ended(t, "t3", api.BackupSucceeded)
	log, err := os.ReadFile(filepath.Join(b.shared, "log"))
	if err != nil {
		t.Fatal(err)
	}
	open := ""
	for line := range strings.Lines(string(log)) {
		kind, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case kind == "begin" && open != "":
			t.Fatalf("restic ran twice at the same time:\n%s", log)
		case kind == "begin":
			open = id
		case id == open:
			open = ""
		}
	}
}

// TestPausedByAKilledAgent: the next agent resumes the containers at once, also while the server is away.
func TestPausedByAKilledAgent(t *testing.T) {
	b := newBackedUp(t)
	b.ask("t1")
	b.ended(t, "t1", api.BackupSucceeded)
	b.stop()
	var id string
	for _, c := range b.containers(t) {
		id = c.ID
	}
	if err := b.engine.PauseContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(b.cfg.DataDir, "backup", "p.paused")
	if err := os.WriteFile(record, fmt.Appendf(nil, `{"containers":[%q]}`, id), 0o600); err != nil {
		t.Fatal(err)
	}
	b.away(true)
	b.cfg.ServerGrace *= 10_000 // assignments from disk stay on hold
	b.run(t)
	waitUntil(t, func() bool { return b.state(t) == engine.StateRunning })
	waitUntil(t, func() bool { _, err := os.Stat(record); return os.IsNotExist(err) })
}

// notBegun checks that a backup of p, which was requested, does not begin. A backup of project q, requested later, shows that the
// agent has decided about both.
func (b *backedUp) notBegun(t *testing.T, token string) {
	t.Helper()
	b.mu.Lock()
	b.secrets["q"] = b.secrets["p"]
	b.mu.Unlock()
	b.write(t, filepath.Join(b.dir, dataName("q", "data"), "_data", "rows"), "1")
	other := withData("web")
	other.Backup = &carav1.Backup{SecretRef: "s", Pause: new(false)}
	b.put("q", other)
	b.wait(t, "q", phase(api.PhaseRunning))
	b.edit("q", func(p *carav1.Project) { p.Status.BackupToken = "q1" })
	b.wait(t, "q", func(p *carav1.Project) bool { return p.GetStatus().GetBackup().GetState() == api.BackupSucceeded })
	b.wait(t, "p", func(p *carav1.Project) bool {
		if s := p.GetStatus().GetBackup(); s.GetToken() == token {
			t.Errorf("the backup %s began: it is %s", token, s.GetState())
		}
		return true
	})
}

// TestNoBackupDuringAMove: a move ends the backup that runs, and the next one begins after the move.
func TestNoBackupDuringAMove(t *testing.T) {
	b := newBackedUp(t)
	b.write(t, filepath.Join(b.shared, "gate"), "")
	b.ask("t1")
	waitUntil(t, func() bool { return b.exists("waits") })
	b.edit("p", func(p *carav1.Project) {
		p.Status.Move = &carav1.Move{
			Id: "m1", From: "n1", To: "n2", Step: api.MoveCopying,
			Volumes: []*carav1.MovedVolume{{Name: "data", Uid: volumeUID("p", "data"), NewUid: newUID}},
		}
	})
	if s := b.ended(t, "t1", api.BackupFailed); s.GetReason() != api.ReasonBackupCancelled {
		t.Errorf("the backup ended with %s: %s", s.GetReason(), s.GetMessage())
	}
	waitUntil(t, func() bool { return b.state(t) == engine.StateRunning })
	if err := os.Remove(filepath.Join(b.shared, "gate")); err != nil {
		t.Fatal(err)
	}
	b.ask("t2")
	b.notBegun(t, "t2")
	b.edit("p", func(p *carav1.Project) { p.Status.Move = nil })
	b.ended(t, "t2", api.BackupSucceeded)
}

// TestContainersThatCouldNotBeResumed: the agent tries to resume them until it succeeds, makes no other backup before, and goes on
// with the project afterwards.
func TestContainersThatCouldNotBeResumed(t *testing.T) {
	b := newBackedUp(t)
	b.write(t, filepath.Join(b.shared, "gate"), "")
	b.ask("t1")
	waitUntil(t, func() bool { return b.exists("waits") })
	b.engine.Fault(func(call string) error {
		if call == "UnpauseContainer" {
			return errors.New("refused by the test")
		}
		return nil
	})
	if err := os.Remove(filepath.Join(b.shared, "gate")); err != nil {
		t.Fatal(err)
	}
	if s := b.ended(t, "t1", api.BackupFailed); s.GetReason() != api.ReasonPauseFailed || !strings.Contains(s.GetMessage(), "the agent tries again") {
		t.Errorf("the backup ended with %s: %s", s.GetReason(), s.GetMessage())
	}
	b.ask("t2")
	b.notBegun(t, "t2")
	b.engine.Fault(nil)
	b.ended(t, "t2", api.BackupSucceeded)
	if got := b.state(t); got != engine.StateRunning {
		t.Errorf("the container is %s", got)
	}
	spec := withData("web:2")
	spec.Backup = &carav1.Backup{SecretRef: "s"}
	b.put("p", spec)
	b.wait(t, "p", func(p *carav1.Project) bool {
		return p.GetStatus().GetObservedGeneration() == p.GetMetadata().GetGeneration() && phase(api.PhaseRunning)(p)
	})
}

// TestBackupFailureIsTold: the status and an event have the reason, without the value of a Secret.
func TestBackupFailureIsTold(t *testing.T) {
	b := newBackedUp(t)
	b.ask("t1")
	b.ended(t, "t1", api.BackupSucceeded)
	b.mu.Lock()
	b.secrets["p"] = map[string][]byte{"s/repository": []byte(filepath.Join(b.dir, "repository")), "s/password": []byte("another password")}
	b.mu.Unlock()
	b.ask("t2")
	s := b.ended(t, "t2", api.BackupFailed)
	if s.GetReason() != api.ReasonWrongPassword || s.GetLastSuccess() == nil || strings.Contains(s.GetMessage(), b.dir) || strings.Contains(s.GetMessage(), "another password") {
		t.Errorf("status %v", s)
	}
	waitUntil(t, func() bool { return b.told(api.ReasonBackupFailed) == 1 })
}
