package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/hostvolume"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// machine tracks the state of the node: whether its engine answers, whether its disk can store assignments, and whether it
// is short of disk or memory. The heartbeats read it and never wait for the engine.
type machine struct {
	cfg    Config
	log    *slog.Logger
	disk   *disk
	held   *inventory
	beat   chan<- struct{} // requests a heartbeat
	engine health
	keeps  health                      // of the disk
	info   atomic.Pointer[engine.Info] // the engine's description of its machine; nil while unknown
	once   sync.Once                   // guards the close of known
	known  chan struct{}               // closed once info was read
	tools  tools
}

func newMachine(cfg Config, log *slog.Logger, d *disk, held *inventory, beat chan<- struct{}) *machine {
	return &machine{cfg: cfg, log: log, disk: d, held: held, beat: beat, known: make(chan struct{}), tools: tools{known: make(chan struct{})}}
}

// health is the last known state of the engine, or of the disk.
type health struct {
	mu   sync.Mutex
	down error // nil if healthy
}

func (h *health) error() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// set reports whether the state changed between healthy and failed.
func (h *health) set(err error) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = (h.down == nil) != (err == nil)
	h.down = err
	return changed
}

// run pings the engine, separately from the heartbeats: a hanging engine must not make the node look dead. It reads the
// engine's info once each time that the engine comes back.
func (m *machine) run(ctx context.Context) error {
	ticker := time.NewTicker(m.cfg.Ping)
	defer ticker.Stop()
	for {
		if m.engine.error() != nil {
			m.info.Store(nil)
		}
		err := m.cfg.Engine.Ping(ctx)
		if err == nil && m.info.Load() == nil {
			err = m.read(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errUnusable) {
			return err
		}
		m.engineSaid(err)
		if m.keeps.error() != nil {
			m.diskSaid(m.disk.try())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// errUnusable means that the agent cannot work with its configuration and this engine.
var errUnusable = errors.New("agent")

func (m *machine) read(ctx context.Context) error {
	info, err := m.cfg.Engine.Info(ctx)
	if err != nil {
		return err
	}
	if err := hostvolume.Check(m.cfg.HostVolumes, info.Root, "the engine's data directory"); err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	m.info.Store(&info)
	m.once.Do(func() { close(m.known) })
	kick(m.beat)
	return nil
}

// engineSaid records the result of a call. Only whether the engine answered matters.
func (m *machine) engineSaid(err error) {
	if err != nil && !errors.Is(err, engine.ErrUnavailable) || !m.engine.set(err) {
		return
	}
	if err != nil {
		m.log.Warn("the engine does not answer: nothing is torn down, nothing is started", "error", err)
	} else {
		m.log.Info("the engine answers")
	}
	kick(m.beat)
}

func (m *machine) engineCondition() *carav1.Condition {
	if err := m.engine.error(); err != nil {
		return api.NewCondition(api.CondEngineReady, api.StatusFalse, api.ReasonNoAnswer, text.Clip(text.Line(err.Error()), step.MaxMessage))
	}
	return api.NewCondition(api.CondEngineReady, api.StatusTrue, api.ReasonAnswers, "the engine answers")
}

// conditions returns the node's conditions, given the last ones it sent.
func (m *machine) conditions(before []*carav1.Condition) []*carav1.Condition {
	var disk, memory Usage
	is := m.info.Load()
	if is != nil {
		disk, memory = usage(is.Root)
	}
	out := append(pressure(m.cfg.Limits, disk, memory, before), m.engineCondition())
	if is != nil && out[0].GetStatus() == api.StatusTrue {
		out[0].Message += m.held.largest(is.Root)
	}
	if err := m.keeps.error(); err != nil {
		out[0] = api.NewCondition(api.CondDiskPressure, api.StatusTrue, api.ReasonNotKept, text.Clip(text.Line(err.Error()), step.MaxMessage)+
			": what runs is kept up, what is new or changed waits until there is room")
	}
	return out
}

// diskSaid records whether an assignment could be stored.
func (m *machine) diskSaid(err error) {
	if !m.keeps.set(err) {
		return
	}
	if err != nil {
		m.log.Error("assignments cannot be kept on disk: what is new or changed waits", "error", err)
	} else {
		m.log.Info("assignments can be kept on disk again")
	}
	kick(m.beat)
}

// describe returns the known information about the node. Fields from the engine are missing until it has answered.
func (m *machine) describe() *carav1.NodeInfo {
	out := &carav1.NodeInfo{
		Platform: runtime.GOOS + "/" + runtime.GOARCH, AgentVersion: m.cfg.Version, IngressAddress: m.cfg.IngressAddress, Features: api.AgentFeatures(),
		Entry: m.cfg.Entry, HostVolumes: hostvolume.Offers(m.cfg.HostVolumes), PublicAddresses: m.cfg.PublicAddresses, AllowedCapabilities: m.cfg.Hardening.AllowCaps, Capacity: &carav1.NodeCapacity{Subnets: int32(m.cfg.Engine.SubnetCapacity())},
	}
	if m.cfg.Ports != nil {
		out.PortOffer = m.cfg.Ports.Offer()
	}
	if found := m.tools.found.Load(); found != nil {
		out.Tools = *found
	}
	if is := m.info.Load(); is != nil {
		out.Platform, out.EngineVersion, out.Hostname = is.Platform, is.Version, is.Hostname
		out.Capacity.Cpu, out.Capacity.Memory = strconv.Itoa(is.CPUs), strconv.FormatInt(is.Memory, 10)
		readDisk(out, is.Root)
	}
	return out
}

// diskStep is the granularity of the reported free space, so that small writes cause no new report.
const diskStep = 256 << 20

// readDisk sets the disk size of the engine's root, if this machine can see it.
func readDisk(info *carav1.NodeInfo, root string) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(root, &fs); err != nil {
		return // an engine on another machine
	}
	block := uint64(fs.Bsize)
	info.Capacity.Disk = strconv.FormatUint(fs.Blocks*block, 10)
	info.Capacity.DiskFree = strconv.FormatUint(fs.Bavail*block/diskStep*diskStep, 10)
}

// diskUsed returns the usage of the disk with the engine's data, or 0, 0 while unknown.
func (m *machine) diskUsed() (used, total uint64) {
	if is := m.info.Load(); is != nil {
		u, _ := diskUsage(is.Root)
		return u.Used, u.Total
	}
	return 0, 0
}

// tools are the programs for data on this machine.
type tools struct {
	found atomic.Pointer[map[string]string] // versions by name; nil while unknown
	known chan struct{}                     // closed once found is known
}

// toolsEvery is how often the programs are looked for: an operator may install one at any time.
const toolsEvery = time.Minute

// watchTools looks for the programs until ctx ends. It requests a heartbeat if they changed.
func (m *machine) watchTools(ctx context.Context) error {
	ticker := time.NewTicker(toolsEvery)
	defer ticker.Stop()
	for {
		found := m.cfg.Tools(ctx)
		before := m.tools.found.Swap(&found)
		switch {
		case before == nil:
			close(m.tools.known)
		case !maps.Equal(*before, found):
			kick(m.beat)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
