package agent

import (
	"context"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// watchMachine asks the engine how it is, apart from the heartbeats: an engine that hangs must not make the node look
// dead. What the machine is, is asked once after each time that the engine came back.
func (a *Agent) watchMachine(ctx context.Context) error {
	ticker := time.NewTicker(a.cfg.Ping)
	defer ticker.Stop()
	for {
		if a.health.error() != nil {
			a.machine.Store(nil)
		}
		err := a.engine.Ping(ctx)
		if err == nil && a.machine.Load() == nil {
			err = a.readMachine(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		a.engineSaid(err)
		if a.kept.error() != nil {
			a.diskSaid(a.disk.try())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (a *Agent) readMachine(ctx context.Context) error {
	info, err := a.engine.Info(ctx)
	if err != nil {
		return err
	}
	a.machine.Store(&info)
	a.known.Do(func() { close(a.machineKnown) })
	kick(a.beat)
	return nil
}

func (a *Agent) engineCondition() *carav1.Condition {
	if err := a.health.error(); err != nil {
		return api.NewCondition(api.CondEngineReady, api.StatusFalse, api.ReasonNoAnswer, text.Clip(text.Line(err.Error()), step.MaxMessage))
	}
	return api.NewCondition(api.CondEngineReady, api.StatusTrue, api.ReasonAnswers, "the engine answers")
}

// conditions of the node, given those that it sent last.
func (a *Agent) conditions(before []*carav1.Condition) []*carav1.Condition {
	var disk, memory Usage
	if m := a.machine.Load(); m != nil {
		disk, memory = usage(m.Root)
	}
	out := append(pressure(a.cfg.Limits, disk, memory, before), a.engineCondition())
	if err := a.kept.error(); err != nil {
		out[0] = api.NewCondition(api.CondDiskPressure, api.StatusTrue, api.ReasonNotKept, text.Clip(text.Line(err.Error()), step.MaxMessage)+
			": what runs is kept up, what is new or changed waits until there is room")
	}
	return out
}

// diskSaid takes in whether the disk could keep an assignment.
func (a *Agent) diskSaid(err error) {
	if !a.kept.set(err) {
		return
	}
	if err != nil {
		a.log.Error("assignments cannot be kept on disk: what is new or changed waits", "error", err)
	} else {
		a.log.Info("assignments can be kept on disk again")
	}
	kick(a.beat)
}

// info describes the node as far as it is known: an engine that has not answered yet leaves out what it would say.
func (a *Agent) info() *carav1.NodeInfo {
	out := &carav1.NodeInfo{
		Platform: runtime.GOOS + "/" + runtime.GOARCH, AgentVersion: a.cfg.Version, IngressAddress: a.cfg.IngressAddress,
		AllowedCapabilities: a.cfg.Hardening.AllowCaps, Capacity: &carav1.NodeCapacity{Subnets: int32(a.engine.SubnetCapacity())},
	}
	if m := a.machine.Load(); m != nil {
		out.Platform, out.EngineVersion, out.Hostname = m.Platform, m.Version, m.Hostname
		out.Capacity.Cpu, out.Capacity.Memory = strconv.Itoa(m.CPUs), strconv.FormatInt(m.Memory, 10)
		readDisk(out, m.Root)
	}
	return out
}

// diskStep is what free space is rounded down to: a node that writes a little has nothing new to say.
const diskStep = 256 << 20

// readDisk fills in the disk of the engine's root, where this machine can see it.
func readDisk(info *carav1.NodeInfo, root string) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(root, &fs); err != nil {
		return // an engine on another machine
	}
	block := uint64(fs.Bsize)
	info.Capacity.Disk = strconv.FormatUint(fs.Blocks*block, 10)
	info.Capacity.DiskFree = strconv.FormatUint(fs.Bavail*block/diskStep*diskStep, 10)
}

// diskUsed is how much of the disk with the engine's data is used; 0, 0 while nobody can tell.
func (a *Agent) diskUsed() (used, total uint64) {
	if m := a.machine.Load(); m != nil {
		u, _ := diskUsage(m.Root)
		return u.Used, u.Total
	}
	return 0, 0
}
