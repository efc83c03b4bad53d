package agent

import (
	"context"
	"runtime"
	"strconv"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ping asks the engine for a sign of life, for the heartbeat.
func (a *Agent) ping(ctx context.Context) {
	if err := a.engine.Ping(ctx); ctx.Err() == nil {
		a.engineSaid(err)
	}
}

func (a *Agent) engineCondition() *carav1.Condition {
	if err := a.health.error(); err != nil {
		return condition(api.CondEngineReady, api.StatusFalse, "NoAnswer", cut(printable(err.Error()), maxMessage))
	}
	return condition(api.CondEngineReady, api.StatusTrue, "Answers", "the engine answers")
}

// changedInfo returns the node's info where it differs from what was told. The engine is asked once a connection; what
// changes by itself is the disk.
func (a *Agent) changedInfo(ctx context.Context, told **carav1.NodeInfo) *carav1.NodeInfo {
	next := proto.CloneOf(*told)
	if next == nil || next.GetEngineVersion() == "" {
		next = a.info(ctx)
	}
	a.readDisk(next)
	if proto.Equal(next, *told) {
		return nil
	}
	*told = next
	return next
}

func (a *Agent) info(ctx context.Context) *carav1.NodeInfo {
	out := &carav1.NodeInfo{
		Platform: runtime.GOOS + "/" + runtime.GOARCH, AgentVersion: a.cfg.Version, IngressAddress: a.cfg.IngressAddress,
		Capacity: &carav1.NodeCapacity{Subnets: int32(a.engine.SubnetCapacity())},
	}
	info, err := a.engine.Info(ctx)
	a.engineSaid(err)
	if err != nil {
		return out // asked again with the next heartbeat; the condition says why
	}
	out.Platform, out.EngineVersion, out.Hostname = info.Platform, info.Version, info.Hostname
	out.Capacity.Cpu, out.Capacity.Memory = strconv.Itoa(info.CPUs), strconv.FormatInt(info.Memory, 10)
	a.root.Store(&info.Root)
	return out
}

// diskStep is what free space is rounded down to: a node that writes a little has nothing new to say.
const diskStep = 256 << 20

// readDisk fills in the disk of the engine's root, where this machine can see it.
func (a *Agent) readDisk(info *carav1.NodeInfo) {
	root := a.root.Load()
	if root == nil {
		return
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(*root, &fs); err != nil {
		return // an engine on another machine
	}
	block := uint64(fs.Bsize)
	info.Capacity.Disk = strconv.FormatUint(fs.Blocks*block, 10)
	info.Capacity.DiskFree = strconv.FormatUint(fs.Bavail*block/diskStep*diskStep, 10)
}
