package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/stream"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/text"
)

// ErrSuperseded means that a newer agent took over this node's name. Two agents would fight over the same containers.
var ErrSuperseded = errors.New("another agent has taken over this node's name")

// connection keeps a stream to the server open. On it the server sends the assignments of this node, and the agent sends
// heartbeats.
type connection struct {
	cfg         Config
	log         *slog.Logger
	nodes       carav1.NodeServiceClient
	instance    string // identifies this run of the agent
	assignments *assignments
	machine     *machine
	inventory   *inventory
	receiving   *receiving
	restoring   *restoring
	backups     *backups
	reports     *reporter
	released    *released
	streams     *stream.Server
	relist      chan<- struct{} // requests a listing of the engine
	beat        <-chan struct{} // requests a heartbeat
	confirm     chan<- struct{} // the same channel
	asked       atomic.Bool     // the server asks what this node has obeyed
}

// run keeps a stream to the server open until ctx ends.
func (c *connection) run(ctx context.Context) error {
	backoff := loop.NewBackoff(200*time.Millisecond, min(c.cfg.MaxBackoff, maxReconnect))
	told := false
	var streams sync.WaitGroup // they outlive their session while they clean up
	defer streams.Wait()
	serve := func(do func(outer context.Context)) { streams.Go(func() { do(ctx) }) }
	for ctx.Err() == nil {
		err := c.session(ctx, serve, func() { told = false })
		c.assignments.link(false)
		c.cfg.Hosts.Ended()
		c.inventory.forget()
		switch {
		case ctx.Err() != nil:
			return nil
		case api.Code(err) == codes.Aborted && api.ProblemOf(err).GetTitle() == api.TitleTakenOver:
			return fmt.Errorf("%w: %w", ErrSuperseded, err)
		}
		if nobodyListens(err) {
			kick(c.assignments.nobody)
		}
		if !told {
			c.log.Warn("connection to the server lost", "error", err)
			told = true
		}
		if c.cfg.Servers != nil {
			c.cfg.Servers.NextServer()
		}
		backoff.Wait(ctx)
	}
	return nil
}

// maxReconnect is the longest wait between connection attempts, so that a restarted server gets its nodes back quickly.
const maxReconnect = time.Second

// nobodyListens reports whether the server's machine refused the connection, which gRPC reports only as text. A server that
// is shutting down or unreachable may still be running and connected to other nodes.
func nobodyListens(err error) bool {
	return api.Code(err) == codes.Unavailable && strings.HasSuffix(strings.TrimRight(err.Error(), `"`), syscall.ECONNREFUSED.Error())
}

// session runs one stream from its first message to its end. Requests of the server are served in goroutines.
func (c *connection) session(ctx context.Context, serve func(func(outer context.Context)), connected func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	c.asked.Store(false)
	stream, err := c.nodes.Connect(ctx)
	if err != nil {
		return fmt.Errorf("connect to the server: %w", err)
	}
	interval := make(chan time.Duration, 1)
	broken := make(chan error, 1)
	helpers.Go(func() {
		if err := c.heartbeats(ctx, stream, interval); err != nil {
			broken <- err
			cancel()
		}
	})
	named, parts := namedObjects{projects: map[string]bool{}, received: map[string]bool{}, restored: map[string]bool{}}, routeParts{}
	for {
		m, err := stream.Recv()
		if err != nil {
			select {
			case sendErr := <-broken:
				if !errors.Is(sendErr, io.EOF) { // EOF only means that Recv returns the reason
					return sendErr
				}
			default:
			}
			return fmt.Errorf("hear from the server: %w", err)
		}
		if w := m.GetWelcome(); w != nil {
			if w.GetClusterId() != c.cfg.ClusterID {
				return fmt.Errorf("the server is of cluster %q, this node of %q: nothing is changed; join this node to the new cluster",
					w.GetClusterId(), c.cfg.ClusterID)
			}
			connected()
			c.assignments.link(true)
			c.cfg.Hosts.Connected(w.GetRoutesOnDemand())
			c.reports.renew()
			c.log.Info("connected")
			if w.GetAskObeyed() {
				c.asked.Store(true)
				kick(c.confirm)
			}
			interval <- w.GetHeartbeatInterval().AsDuration()
			continue
		}
		if r := m.GetRoutes(); r != nil {
			if err := c.hearRoutes(&parts, r); err != nil {
				return err
			}
			continue
		}
		c.hear(ctx, m, named, serve)
	}
}

// hearRoutes processes routes. parts has what came before them.
func (c *connection) hearRoutes(parts *routeParts, r *carav1.Routes) error {
	whole, err := parts.join(r)
	if whole != nil && c.cfg.OnRoutes != nil {
		c.cfg.OnRoutes(whole)
	}
	return err
}

// namedObjects is what the server has named on a connection: projects, and the uids of volumes to receive and to restore.
type namedObjects struct{ projects, received, restored map[string]bool }

// hear processes one message. named collects what the server has named so far.
func (c *connection) hear(ctx context.Context, m *carav1.ConnectResponse, named namedObjects, serve func(func(outer context.Context))) {
	switch m := m.GetMessage().(type) {
	case *carav1.ConnectResponse_Assignment:
		if name := m.Assignment.GetProject().GetMetadata().GetName(); !c.refuses(name) {
			named.projects[name] = true
			for _, use := range m.Assignment.GetProject().GetStatus().GetVolumes() {
				c.endFilling(use.GetUid())
			}
			c.assignments.assign(m.Assignment)
			kick(c.backups.wake)
		}
	case *carav1.ConnectResponse_Unassigned:
		if name := m.Unassigned.GetName(); !c.refuses(name) {
			c.assignments.unassign(name, m.Unassigned.GetUid(), m.Unassigned.GetEpoch())
		}
	case *carav1.ConnectResponse_Synced:
		c.assignments.sync(named.projects)
		c.receiving.synced(named.received)
		c.restoring.synced(named.restored)
		kick(c.relist)
	case *carav1.ConnectResponse_Credentials:
		if c.cfg.OnCredentials != nil {
			c.cfg.OnCredentials(m.Credentials)
			kick(c.confirm)
		}
	case *carav1.ConnectResponse_RemoveVolume:
		c.endFilling(m.RemoveVolume.GetUid())
		c.inventory.ask(m.RemoveVolume)
	case *carav1.ConnectResponse_ReceiveVolume:
		named.received[m.ReceiveVolume.GetUid()] = true
		c.receiving.ask(m.ReceiveVolume)
	case *carav1.ConnectResponse_RestoreVolume:
		named.restored[m.RestoreVolume.GetUid()] = true
		c.restoring.ask(m.RestoreVolume)
	case *carav1.ConnectResponse_Servers:
		if c.cfg.Servers != nil {
			c.cfg.Servers.Learn(m.Servers.GetAddresses())
		}
	case *carav1.ConnectResponse_OpenStream:
		serve(func(outer context.Context) { c.streams.Serve(ctx, outer, m.OpenStream) })
	}
}

// endFilling ends the transfer or the restore that fills a volume.
func (c *connection) endFilling(uid string) {
	c.receiving.end(uid)
	c.restoring.end(uid)
}

// infoPatience is how long a connection waits for the engine: for its description of the machine, and for its volumes.
const infoPatience = 3 * time.Second

func (c *connection) awaitEngine(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, infoPatience)
	defer cancel()
	for _, known := range []<-chan struct{}{c.machine.known, c.inventory.known, c.machine.tools.known} {
		select {
		case <-ctx.Done():
		case <-known:
		}
	}
}

// heartbeats sends the first heartbeat immediately, with the node's info, which the server answers with its welcome. Then it
// sends one per interval, and one whenever the engine goes down or comes back. No heartbeat waits for the engine.
func (c *connection) heartbeats(ctx context.Context, stream grpc.BidiStreamingClient[carav1.ConnectRequest, carav1.ConnectResponse], interval <-chan time.Duration) error {
	c.awaitEngine(ctx)
	if ctx.Err() != nil {
		return nil
	}
	volumes := 0 // the version of the inventory that the server has
	var told *carav1.NodeInfo
	var conditions []*carav1.Condition
	ports, hosts := portNews{of: c.cfg.Ports}, hostNews{of: c.cfg.Hosts}
	var answering []string // the challenges that the server knows this agent answers
	every := 5 * time.Second
	needed := c.cfg.Hosts.Begin() // the first message asks about them
	var peers []byte
	if c.cfg.PeersDigest != nil {
		peers = c.cfg.PeersDigest()
	}
	for {
		conditions = c.machine.conditions(conditions)
		beat := &carav1.Heartbeat{Conditions: conditions}
		if info := c.machine.describe(); !proto.Equal(info, told) {
			beat.Info, told = info, info
		}
		beat.Volumes, volumes = c.inventory.news(volumes)
		beat.Ports = ports.next()
		message := &carav1.ConnectRequest{Heartbeat: beat, InstanceId: c.instance, Released: c.released.take(), Capabilities: append(slices.Clone(c.cfg.Capabilities), api.CapabilityRecovery, api.CapabilityRoutesInParts), AskHosts: needed, PeersDigest: peers}
		needed, peers = nil, nil
		if c.cfg.Answering != nil {
			if now := c.cfg.Answering(); !slices.Equal(now, answering) {
				message.Answering, message.Confirms, answering = now, true, now
			}
		}
		if c.asked.CompareAndSwap(true, false) {
			message.Obeyed = c.assignments.obeyed()
			c.log.Warn("the cluster was recovered from an older state: the server gets a list of what runs here", "projects", len(message.GetObeyed().GetProjects()))
		}
		if err := stream.Send(message); err != nil {
			return fmt.Errorf("send a heartbeat: %w", err)
		}
		due := time.After(every)
		for waiting := true; waiting; {
			waiting = false
			select {
			case <-ctx.Done():
				return nil
			case d := <-interval:
				every = cmp.Or(d, every)
			case <-c.beat:
			case <-ports.changes():
			case <-due:
			case <-hosts.changes():
				if err := c.sendHosts(stream); err != nil {
					return err
				}
				hosts.sent()
				waiting = true
			case <-hosts.pause:
				hosts.pause = nil
				waiting = true
			}
		}
	}
}

// sendHosts tells the server which hosts the ingress needs, without a heartbeat.
func (c *connection) sendHosts(stream grpc.BidiStreamingClient[carav1.ConnectRequest, carav1.ConnectResponse]) error {
	ask, forget := c.cfg.Hosts.Take()
	if len(ask)+len(forget) == 0 {
		return nil
	}
	if err := stream.Send(&carav1.ConnectRequest{InstanceId: c.instance, AskHosts: ask, ForgetHosts: forget}); err != nil {
		return fmt.Errorf("ask for routes: %w", err)
	}
	return nil
}

// askEvery is the least time between two messages about hosts. The server takes only so many messages of an agent, and reads the others
// later: if each host of a crowd had a message of its own, heartbeats would wait behind them until the node counts as lost.
const askEvery = 50 * time.Millisecond

// hostNews tells when the server is to hear which hosts the ingress needs.
type hostNews struct {
	of    Hosts
	pause <-chan time.Time // after a message; nil if the next one may be sent
}

func (n *hostNews) changes() <-chan struct{} {
	if n.pause != nil {
		return nil
	}
	return n.of.News()
}

func (n *hostNews) sent() { n.pause = time.After(askEvery) }

// portNews is what the heartbeats of one connection say about ports.
type portNews struct {
	of   Ports // nil if the node has none
	told *carav1.PortReport
}

// next returns the report if the server does not have it.
func (n *portNews) next() *carav1.PortReport {
	if n.of == nil {
		return nil
	}
	report := n.of.Report()
	if n.told != nil && proto.Equal(report, n.told) {
		return nil
	}
	n.told = report
	return report
}

func (n *portNews) changes() <-chan struct{} {
	if n.of == nil {
		return nil
	}
	return n.of.Changes()
}

// refuses reports whether a project name from the server is invalid. A name becomes part of file names and of names in the
// engine, so an invalid one is ignored, without even a report.
func (c *connection) refuses(name string) bool {
	if api.IsName(name) {
		return false
	}
	c.log.Error("refused an assignment: its project has no valid name", "project", text.Line(text.Clip(name, 100)))
	return true
}

// released lists the projects that this node has given up and another node waits for. The next heartbeat names them. If that
// heartbeat is lost because the stream breaks, the server asks again on the next stream.
type released struct {
	beat chan<- struct{}

	mu   sync.Mutex
	left []*carav1.Released
}

// add adds a project of which nothing is left, if the server waits for it.
func (r *released) add(want *step.Want) {
	if want.Epoch == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = append(r.left, &carav1.Released{Name: want.Project, Uid: want.UID, Epoch: want.Epoch})
	kick(r.beat)
}

// take returns the projects for the next heartbeat and clears the list.
func (r *released) take() []*carav1.Released {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.left
	r.left = nil
	return left
}
