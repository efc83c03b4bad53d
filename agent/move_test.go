package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// movePair is a project with data on node n1 that moves to node n2. Each node has its own engine and server.
type movePair struct {
	from, to *faked
	// fromDir and toDir have the data on each node.
	fromDir, toDir string
	// address of n2, as the server tells it.
	address string
	// cut refuses connections between the nodes.
	cut atomic.Bool
	// dials counts the connections between the nodes. Before each of them, the copy is changed if spoil is set.
	dials atomic.Int32
	spoil atomic.Bool
	// receiver is the agent of n2.
	receiver atomic.Pointer[agent.Agent]
}

const newUID = "newuid-p-data-0002"

// newMovePair brings project p up on n1, with a file, and lets n2 receive its data.
func newMovePair(t *testing.T) *movePair {
	t.Helper()
	testneed.Program(t, "rsync", "rsync")
	if os.Geteuid() != 0 {
		testneed.Missing(t, "rsync needs root for its chroot: run the tests as root")
	}
	m := &movePair{from: newFaked(t), to: newFaked(t)}
	dirs := t.TempDir()
	m.from.engine.MountVolumes(filepath.Join(dirs, "n1"))
	m.to.engine.MountVolumes(filepath.Join(dirs, "n2"))
	m.fromDir = filepath.Join(dirs, "n1", dataName("p", "data"), "_data")
	m.toDir = filepath.Join(dirs, "n2", api.EngineVolume("p", "data", newUID), "_data")
	if err := errors.Join(os.MkdirAll(m.fromDir, 0o755), os.MkdirAll(m.toDir, 0o755), os.WriteFile(filepath.Join(m.fromDir, "file"), []byte("first"), 0o600)); err != nil {
		t.Fatal(err)
	}
	m.to.cfg.NodeName = "n2"
	m.runTo(t)
	address := m.serve(t)
	m.from.cfg.DialVolumes = func(ctx context.Context, _, at string) (net.Conn, error) {
		if at != address || m.cut.Load() {
			return nil, fmt.Errorf("reach %s: cut", at)
		}
		m.dials.Add(1)
		if m.spoil.Load() {
			if err := rewrite(filepath.Join(m.toDir, "file"), "WRONG"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	m.from.up(t, withData("web", "web"))
	m.to.receive(&carav1.ReceiveVolume{Uid: newUID, Project: "p", Name: "data", Owner: "source/git", From: "n1"})
	waitUntil(t, func() bool { held, _ := m.to.holds(); return held[newUID].GetOwner() == "source/git" })
	m.address = address
	return m
}

// runTo starts the agent of n2.
func (m *movePair) runTo(t *testing.T) {
	t.Helper()
	m.to.run(t)
	m.receiver.Store(m.to.agent)
}

// serve accepts connections of node n1 for n2.
func (m *movePair) serve(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { m.receiver.Load().ReceiveVolume(ctx, "n1", c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		served.Wait()
	})
	return l.Addr().String()
}

// step moves to a step, or ends the move if it is empty.
func (m *movePair) step(step string, attempts int32) {
	m.from.edit("p", func(p *carav1.Project) {
		p.Status.Move = nil
		if step != "" {
			p.Status.Move = &carav1.Move{
				Id: "m1", From: "n1", To: "n2", Step: step, Attempts: attempts, Address: m.address,
				Volumes: []*carav1.MovedVolume{{Name: "data", Uid: volumeUID("p", "data"), NewUid: newUID}},
			}
		}
	})
}

// copied waits until the first pass is complete.
func (m *movePair) copied(t *testing.T) {
	t.Helper()
	m.step(api.MoveCopying, 0)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveCopied) > 1 }) // it is repeated
}

// equal checks the copy.
func (m *movePair) equal(t *testing.T) {
	t.Helper()
	a, err1 := os.ReadFile(filepath.Join(m.fromDir, "file"))
	b, err2 := os.ReadFile(filepath.Join(m.toDir, "file"))
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the copy has %q, want %q (%v)", b, a, err)
	}
}

// running counts the containers that run on n1.
func (m *movePair) running(t *testing.T) int {
	t.Helper()
	n := 0
	for _, c := range m.from.containers(t) {
		if c.State == engine.StateRunning {
			n++
		}
	}
	return n
}

// rewrite changes a file so that only a comparison of the content finds it: rsync sees the same size and time.
func rewrite(file, text string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chtimes(file, info.ModTime(), info.ModTime()))
}

// TestMoveData: the project runs during the first pass, is stopped for the second, and reports only what is true.
func TestMoveData(t *testing.T) {
	m := newMovePair(t)
	before := m.from.containers(t)
	m.copied(t)
	m.equal(t)
	if diff := cmp.Diff(ids(before), ids(m.from.containers(t))); diff != "" || m.from.moveReports(api.MoveVerified) > 0 {
		t.Errorf("while it is copied (-before +now):\n%s", diff)
	}
	p := m.from.wait(t, "p", func(p *carav1.Project) bool {
		return api.FindCondition(p.GetStatus().GetConditions(), api.CondMoving) != nil
	})
	if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondMoving); c.GetStatus() != api.StatusTrue || c.GetReason() != api.MoveCopying || !strings.Contains(c.GetMessage(), "n2") {
		t.Errorf("condition %v", c)
	}
	if err := rewrite(filepath.Join(m.fromDir, "file"), "FIRST"); err != nil {
		t.Fatal(err)
	}
	m.step(api.MoveSwitching, 0)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveVerified) > 1 })
	m.equal(t)
	if n := m.running(t); n > 0 {
		t.Errorf("%d containers run", n)
	}
	m.step("", 0) // canceled: it continues, with the same containers
	m.from.wait(t, "p", func(*carav1.Project) bool { return m.running(t) == 2 })
	for name, c := range m.from.containers(t) {
		if c.ID != before[name].ID {
			t.Errorf("%s was created again", name)
		}
	}
}

// TestSwitchWaitsForTheStop: while a container still runs, nothing is copied for the switch, because it would miss what the container
// writes.
func TestSwitchWaitsForTheStop(t *testing.T) {
	m := newMovePair(t)
	m.copied(t)
	m.from.engine.Fault(func(call string) error {
		if call == "StopContainer" {
			return errors.New("refused by the test")
		}
		return nil
	})
	dials, tried := m.dials.Load(), m.from.engine.Calls("StopContainer")
	m.step(api.MoveSwitching, 0)
	waitUntil(t, func() bool { return m.from.engine.Calls("StopContainer") > tried+3 })
	if n := m.dials.Load() - dials; n > 0 || m.from.moveReports(api.MoveVerified) > 0 {
		t.Errorf("%d connections while the containers run, and %d reports that the copy is equal", n, m.from.moveReports(api.MoveVerified))
	}
	if err := os.WriteFile(filepath.Join(m.fromDir, "file"), []byte("the last write"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.from.engine.Fault(nil)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveVerified) > 0 })
	m.equal(t)
}

// TestACopyThatStaysDifferent: a copy that differs again after it was copied again is not verified, and the project continues.
func TestACopyThatStaysDifferent(t *testing.T) {
	m := newMovePair(t)
	m.copied(t)
	m.spoil.Store(true)
	m.step(api.MoveSwitching, 0)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveInterrupted)+m.from.moveReports(api.MoveVerified) > 0 })
	if m.from.moveReports(api.MoveVerified) > 0 {
		t.Fatal("the copy was called equal")
	}
	m.from.wait(t, "p", func(*carav1.Project) bool { return m.running(t) == 2 })
}

// TestVerifiedSurvivesTheAgent: after Verified was reported, an agent that starts again starts nothing, with the server or
// without it, and reports it again.
func TestVerifiedSurvivesTheAgent(t *testing.T) {
	m := newMovePair(t)
	m.copied(t)
	m.step(api.MoveSwitching, 0)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveVerified) > 0 })
	starts := m.from.engine.Calls("StartContainer")
	m.from.away(true)
	m.from.stop()
	m.from.run(t)
	refused, seen := m.from.refusals(), m.from.engine.Calls("ListContainers")
	waitUntil(t, func() bool { return m.from.refusals() > refused+3 && m.from.engine.Calls("ListContainers") > seen+5 })
	if n := m.from.engine.Calls("StartContainer") - starts; n > 0 || m.running(t) > 0 {
		t.Errorf("without the server, %d containers were started", n)
	}
	m.cut.Store(true) // it does not copy again
	reports := m.from.moveReports(api.MoveVerified)
	m.from.away(false)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveVerified) > reports+1 })
	if n := m.from.engine.Calls("StartContainer") - starts; n > 0 {
		t.Errorf("%d containers were started", n)
	}
	m.step(api.MoveCopying, 0) // an older assignment
	reports = m.from.moveReports(api.MoveVerified)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveVerified) > reports+1 })
	if n := m.from.engine.Calls("StartContainer") - starts; n > 0 {
		t.Errorf("an older assignment started %d containers", n)
	}
	m.step(api.MoveCopying, 1)
	m.from.wait(t, "p", func(*carav1.Project) bool { return m.running(t) == 2 })
}

// TestSwitchInterrupted: if the link breaks after the stop, the project continues at once, whatever the server says.
func TestSwitchInterrupted(t *testing.T) {
	m := newMovePair(t)
	m.copied(t)
	m.cut.Store(true)
	m.step(api.MoveSwitching, 0)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveInterrupted) > 1 })
	m.from.wait(t, "p", func(*carav1.Project) bool { return m.running(t) == 2 })
	stops, reports := m.from.engine.Calls("StopContainer"), m.from.moveReports(api.MoveInterrupted)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveInterrupted) > reports+1 }) // the server does not react
	if n := m.from.engine.Calls("StopContainer") - stops; n > 0 || m.running(t) != 2 {
		t.Errorf("%d containers run, after %d stops", m.running(t), n)
	}
	if m.from.moveReports(api.MoveVerified) > 0 {
		t.Error("it was verified")
	}
	m.cut.Store(false)
	m.step(api.MoveCopying, 1)
	copies := m.from.moveReports(api.MoveCopied)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveCopied) > copies })
	m.step(api.MoveSwitching, 1)
	waitUntil(t, func() bool { return m.from.moveReports(api.MoveVerified) > 0 })
	m.equal(t)
}

// TestMoveCannotSucceed: what no retry mends is reported as Failed, with what to do.
func TestMoveCannotSucceed(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(t *testing.T, m *movePair)
		want   string
	}{
		"no address": {func(_ *testing.T, m *movePair) { m.address = "" }, "--ingress-address"},
		"the data is not readable here": {func(t *testing.T, m *movePair) {
			if err := os.RemoveAll(m.fromDir); err != nil {
				t.Fatal(err)
			}
		}, "must run as root on the machine of the Docker engine"},
		"a container there mounts it": {func(t *testing.T, m *movePair) {
			spec := engine.ContainerSpec{
				Name: "cara-p.a", Labels: map[string]string{api.LabelCluster: "c1", api.LabelNode: "n2", api.LabelProject: "p"},
				Service: &carav1.Service{Name: "a", Image: "web", VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}},
				Volumes: map[string]engine.Source{"data": {Volume: api.EngineVolume("p", "data", newUID)}},
			}
			if _, err := m.to.engine.CreateContainer(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
		}, "in use and may be newer"},
		"a project there has used it": {func(t *testing.T, m *movePair) {
			if err := os.MkdirAll(filepath.Join(m.to.cfg.DataDir, "used"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(m.to.cfg.DataDir, "used", newUID), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "has used the volume"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMovePair(t)
			if strings.HasPrefix(name, "a container") {
				m.to.cfg.OrphanGrace = 1 << 40
				m.to.stop()
				m.runTo(t)
			}
			tt.change(t, m)
			m.step(api.MoveCopying, 0)
			waitUntil(t, func() bool { return m.from.moveReports(api.MoveFailed) > 0 })
			m.from.mu.Lock()
			defer m.from.mu.Unlock()
			if said := m.from.moved[len(m.from.moved)-1].GetMessage(); !strings.Contains(said, tt.want) {
				t.Errorf("it says %q, want %q", said, tt.want)
			}
		})
	}
}

// TestTools: the node's info has the programs for data.
func TestTools(t *testing.T) {
	f := newFaked(t)
	f.cfg.Tools = func(context.Context) map[string]string { return map[string]string{"rsync": "3.2.7"} }
	f.run(t)
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.beats) > 0 && f.beats[0].GetInfo().GetTools()["rsync"] == "3.2.7"
	})
}
