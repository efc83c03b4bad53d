package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/cli/kind"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// The other programs' actions, through the real API: a node joins and reports, a scheduler decides, a source reports its
// state.

// node joins as name and says what machine it is. It offers host volumes: NAME, or NAME,ro to a project jellyfin-*.
func (h *testServer) node(ctx context.Context, name string, offers ...string) error {
	info := &carav1.NodeInfo{
		Platform: "linux/amd64", AgentVersion: "v1", EngineVersion: "28.5.2", IngressAddress: "10.0.0.1:8081",
		AllowedCapabilities: []string{"NET_ADMIN", "SYS_PTRACE"},
		Capacity:            &carav1.NodeCapacity{Cpu: "4", Memory: "8589934592", Disk: "107374182400", DiskFree: "53687091200", Subnets: 2048},
	}
	for _, offer := range offers {
		host := &carav1.HostVolume{}
		if host.Name, host.ReadOnly = strings.CutSuffix(offer, ",ro"); host.ReadOnly {
			host.Projects = []string{"jellyfin-*"}
		}
		info.HostVolumes = append(info.HostVolumes, host)
	}
	return h.beat(ctx, name, &carav1.Heartbeat{
		Info:       info,
		Conditions: []*carav1.Condition{{Type: api.CondEngineReady, Status: api.StatusTrue, Reason: "Answers", Message: "the engine answers"}},
	})
}

// holds reports that the engine of a node has these volumes and no others: NAME, or NAME=BYTES if the size is known.
func (h *testServer) holds(ctx context.Context, node string, names ...string) error {
	conn, err := h.loop(ctx, "scheduler")
	if err != nil {
		return err
	}
	inventory := &carav1.VolumeInventory{}
	for _, name := range names {
		name, size, measured := strings.Cut(name, "=")
		v, err := carav1.NewVolumeServiceClient(conn).GetVolume(ctx, kind.ByName(name))
		if err != nil {
			return err
		}
		held := &carav1.HeldVolume{Uid: v.GetMetadata().GetUid(), Project: v.GetSpec().GetProject(), Name: v.GetSpec().GetName()}
		if measured {
			bytes, err := strconv.ParseInt(size, 10, 64)
			if err != nil {
				return err
			}
			held.SizeBytes, held.SizeTime = &bytes, timestamppb.New(h.clock.now())
		}
		inventory.Volumes = append(inventory.Volumes, held)
	}
	n, err := carav1.NewNodeServiceClient(conn).GetNode(ctx, kind.ByName(node))
	if err != nil {
		return err
	}
	return h.beat(ctx, node, &carav1.Heartbeat{Info: n.GetStatus().GetInfo(), Volumes: inventory})
}

// tooled reports that the machine of a node has rsync.
func (h *testServer) tooled(ctx context.Context, node string) error {
	conn, err := h.loop(ctx, "scheduler")
	if err != nil {
		return err
	}
	n, err := carav1.NewNodeServiceClient(conn).GetNode(ctx, kind.ByName(node))
	if err != nil {
		return err
	}
	n.Status.Info.Tools = map[string]string{api.ToolRsync: "3.2.7", api.ToolRestic: "0.18.0"}
	return h.beat(ctx, node, &carav1.Heartbeat{Info: n.GetStatus().GetInfo()})
}

// beat sends the first heartbeat of a connection of a node.
func (h *testServer) beat(ctx context.Context, name string, heartbeat *carav1.Heartbeat) error {
	conn, err := h.as(ctx, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := carav1.NewNodeServiceClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&carav1.ConnectRequest{InstanceId: "test", Heartbeat: heartbeat})
	if err != nil {
		return err
	}
	_, err = stream.Recv() // the welcome: the server has handled the heartbeat
	return err
}

// loop is a connection as one of the server's loops.
func (h *testServer) loop(_ context.Context, name string) (grpc.ClientConnInterface, error) {
	return h.Client(name) //nolint:contextcheck // each call brings its own context
}

// as returns a connection as a node, which joins if it has not joined yet.
func (h *testServer) as(ctx context.Context, node string) (*grpc.ClientConn, error) {
	token, err := os.ReadFile(filepath.Join(h.dir, identity.JoinTokenFile))
	if err != nil {
		return nil, err
	}
	c, err := join.Join(ctx, join.Config{
		Server: h.address, Token: strings.TrimSpace(string(token)), NodeName: node, DataDir: filepath.Join(h.dir, "node-"+node),
	})
	if err != nil {
		return nil, err
	}
	return c.Dial()
}

func (h *testServer) project(ctx context.Context, name string) (*carav1.Project, error) {
	conn, err := h.loop(ctx, "scheduler")
	if err != nil {
		return nil, err
	}
	return carav1.NewProjectServiceClient(conn).GetProject(ctx, kind.ByName(name))
}

// await waits until a condition of a project has a reason.
func (h *testServer) await(ctx context.Context, project, reason string) error {
	return testcluster.WaitFor(ctx, "project "+project+" has a condition with "+reason, func(ctx context.Context) error {
		p, err := h.project(ctx, project)
		if err == nil && !slices.ContainsFunc(p.GetStatus().GetConditions(), func(c *carav1.Condition) bool { return c.GetReason() == reason }) {
			err = errors.New("it has not")
		}
		return err
	})
}

// schedule is one decision of the scheduler: Bind to a node, or Explain.
func (h *testServer) schedule(ctx context.Context, project, action, node, message string) error {
	p, err := h.project(ctx, project)
	if err != nil {
		return err
	}
	conn, err := h.loop(ctx, "scheduler")
	if err != nil {
		return err
	}
	reason := ""
	if action == "Explain" && p.GetStatus().GetNodeRef() != "" {
		reason = "NodeDraining"
	}
	_, err = carav1.NewProjectServiceClient(conn).ScheduleProject(ctx, &carav1.ScheduleProjectRequest{
		Name: project, ResourceVersion: p.GetMetadata().GetResourceVersion(), Action: action, NodeRef: node, Reason: reason, Message: message,
	})
	return err
}

// empty marks a draining node as drained, like the scheduler.
func (h *testServer) empty(ctx context.Context, node string) error {
	conn, err := h.loop(ctx, "scheduler")
	if err != nil {
		return err
	}
	c := carav1.NewNodeServiceClient(conn)
	n, err := c.GetNode(ctx, kind.ByName(node))
	if err != nil {
		return err
	}
	_, err = c.MarkNodeDrained(ctx, &carav1.MarkNodeDrainedRequest{
		Name: node, ResourceVersion: n.GetMetadata().GetResourceVersion(), Message: "nothing runs here any more",
	})
	return err
}

// report sends the report of a project's node: the state of all services, and an optional phase.
func (h *testServer) report(ctx context.Context, project, phase, state, reason, message string) error {
	p, err := h.project(ctx, project)
	if err != nil {
		return err
	}
	conn, err := h.as(ctx, p.GetStatus().GetNodeRef())
	if err != nil {
		return err
	}
	defer conn.Close()
	req := &carav1.UpdateProjectStatusRequest{
		Name: project, Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(), Phase: phase,
		ObservedGeneration: p.GetMetadata().GetGeneration(),
	}
	ready := api.StatusFalse
	if state == "Running" {
		ready = api.StatusTrue
	}
	req.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: ready, Reason: reason, Message: message}}
	for _, s := range p.GetSpec().GetServices() {
		req.Services = append(req.Services, &carav1.ServiceStatus{
			Name: s.GetName(), State: state, Image: s.GetImage(), ContainerId: "0123456789abcdef", StartedAt: timestamppb.New(h.clock.now()),
		})
	}
	_, err = carav1.NewProjectServiceClient(conn).UpdateProjectStatus(ctx, req)
	return err
}

// remove removes a project that its node has torn down.
func (h *testServer) remove(ctx context.Context, project string) error {
	if err := h.report(ctx, project, api.PhaseTerminated, "Stopped", "Stopped", ""); err != nil {
		return err
	}
	p, err := h.project(ctx, project)
	if err != nil {
		return err
	}
	conn, err := h.loop(ctx, "gc")
	if err != nil {
		return err
	}
	_, err = carav1.NewProjectServiceClient(conn).RemoveProject(ctx, &carav1.RemoveProjectRequest{Name: project, Uid: p.GetMetadata().GetUid()})
	return err
}

// silent marks a node as NotReady, like the scheduler.
func (h *testServer) silent(ctx context.Context, node string) error {
	conn, err := h.loop(ctx, "scheduler")
	if err != nil {
		return err
	}
	n, err := carav1.NewNodeServiceClient(conn).GetNode(ctx, kind.ByName(node))
	if err != nil {
		return err
	}
	_, err = carav1.NewNodeServiceClient(conn).MarkNodeNotReady(ctx, &carav1.MarkNodeNotReadyRequest{
		Name: node, LastHeartbeat: n.GetStatus().GetLastHeartbeat(), Message: "no heartbeat for 20s",
	})
	return err
}

// sourceSays sets one condition of a source, and answers a reconcile that was asked for.
func (h *testServer) sourceSays(ctx context.Context, source, typ, status, message string) error {
	conn, err := h.loop(ctx, "reconciler")
	if err != nil {
		return err
	}
	c := carav1.NewSourceServiceClient(conn)
	s, err := c.GetSource(ctx, kind.ByName(source))
	if err != nil {
		return err
	}
	token := s.GetStatus().GetRequestedToken()
	_, err = c.UpdateSourceStatus(ctx, &carav1.UpdateSourceStatusRequest{
		Name: source, Uid: s.GetMetadata().GetUid(), HandledToken: &token,
		Conditions: []*carav1.Condition{{Type: typ, Status: status, Reason: "Said", Message: message, ObservedGeneration: s.GetMetadata().GetGeneration()}},
	})
	return err
}

// publish publishes a source's snapshot of equal projects, each in a file with its name.
func (h *testServer) publish(ctx context.Context, source, revision string, projects ...string) error {
	conn, err := h.loop(ctx, "sources")
	if err != nil {
		return err
	}
	c := carav1.NewSourceServiceClient(conn)
	s, err := c.GetSource(ctx, kind.ByName(source))
	if err != nil {
		return err
	}
	stream, err := c.PublishSnapshot(ctx)
	if err != nil {
		return err
	}
	req := &carav1.PublishSnapshotRequest{
		Source: source, SourceUid: s.GetMetadata().GetUid(),
		Head: &carav1.Snapshot{
			Revision: revision, Sequence: s.GetStatus().GetSnapshot().GetSequence() + 1, Complete: true, Subject: "Add the shop",
			Files: int32(len(projects)), Projects: int32(len(projects)),
		},
	}
	for _, name := range projects {
		p := &carav1.Project{
			ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
			Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: "nginx:1"}}},
		}
		req.Upserts = append(req.Upserts, &carav1.ClaimSpec{
			Source: source, SourceUid: s.GetMetadata().GetUid(), Project: p, Hash: api.ClaimHash(p),
			File: "deploy/" + name + ".yaml", Line: 1, Revision: revision, Present: true,
		})
		if err := h.applyFor(ctx, source, revision, p); err != nil {
			return err
		}
	}
	if err := stream.Send(req); err != nil {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

// applyFor makes a project belong to a source.
func (h *testServer) applyFor(ctx context.Context, source, revision string, p *carav1.Project) error {
	conn, err := h.loop(ctx, "reconciler")
	if err != nil {
		return err
	}
	p.Metadata.Origin = &carav1.Origin{Source: source, File: "deploy/" + p.GetMetadata().GetName() + ".yaml", Line: 1, Revision: revision}
	resp, err := carav1.NewApplyServiceClient(conn).Apply(ctx, &carav1.ApplyRequest{Source: source, Objects: []*carav1.Object{api.Wrap(p)}})
	if err != nil {
		return err
	}
	if r := resp.GetResults()[0]; r.GetAction() == api.ApplyRefused {
		return fmt.Errorf("apply %s for %s: %s", r.GetName(), source, r.GetProblem().GetDetail())
	}
	return nil
}
