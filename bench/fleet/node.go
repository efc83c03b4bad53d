package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// node is a simulated node: an agent without an engine. It reports each project that is assigned to it as running.
type node struct {
	name   string
	fleet  *fleet
	conn   *grpc.ClientConn
	nodes  carav1.NodeServiceClient
	client carav1.ProjectServiceClient

	peers api.PeersDigest // of what the server has sent; only session uses it
	parts *carav1.Routes  // of routes that go on; only session uses it

	end    context.CancelFunc // ends what start began; nil before the first start
	ended  chan struct{}
	synced atomic.Bool // the server has sent the complete state on the current connection

	mu       sync.Mutex
	raw      net.Conn                   // the newest connection; nil before the first one
	want     map[string]*carav1.Project // what the engine would run, by name
	work     map[string]struct{}        // projects to report
	released []*carav1.Released
	wake     chan struct{}
}

// wire counts the bytes of all agents' connections, TLS included.
type wire struct{ in, out atomic.Int64 }

// total returns the bytes that the server has sent and received.
func (w *wire) total() int64 { return w.in.Load() + w.out.Load() }

type countedConn struct {
	net.Conn
	wire *wire
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.in.Add(int64(n))
	return n, err
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wire.out.Add(int64(n))
	return n, err
}

// joinNode makes a node a member of the cluster.
func (f *fleet) joinNode(ctx context.Context, i int, token string) (*node, error) {
	n := &node{
		name: fmt.Sprintf("n-%d", i), fleet: f, want: map[string]*carav1.Project{}, work: map[string]struct{}{}, wake: make(chan struct{}, 1),
	}
	credentials, err := join.Join(ctx, join.Config{
		Server: f.addresses(i), Token: token, NodeName: n.name, DataDir: filepath.Join(f.Dir, "nodes", n.name), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{}
	n.conn, err = credentials.Dial(
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10), // thousands of them are in this process
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			n.raw = conn
			return countedConn{conn, &f.wire}, nil
		}))
	if err != nil {
		return nil, err
	}
	n.nodes, n.client = carav1.NewNodeServiceClient(n.conn), carav1.NewProjectServiceClient(n.conn)
	return n, nil
}

// start connects the node, and connects it again after failures, until stop.
func (n *node) start(ctx context.Context) {
	ctx, n.end = context.WithCancel(ctx)
	n.ended = make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		backoff := loop.NewBackoff(200*time.Millisecond, time.Second) // as the real agent
		for ctx.Err() == nil {
			if err := n.session(ctx, func() { backoff = loop.NewBackoff(200*time.Millisecond, time.Second) }); ctx.Err() == nil {
				n.fleet.broken(n.name, err)
			}
			n.synced.Store(false)
			backoff.Wait(ctx)
		}
	})
	running.Go(func() { n.report(ctx) })
	go func() {
		running.Wait()
		close(n.ended)
	}()
}

// stop ends the node's connection and its reports, as if the machine had no power.
func (n *node) stop() {
	n.end()
	<-n.ended
	n.synced.Store(false)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.raw != nil {
		_ = n.raw.Close() // gRPC hears about it as about any other end
	}
}

// session runs one stream from its first message to its end.
func (n *node) session(ctx context.Context, connected func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var beats sync.WaitGroup
	defer beats.Wait()
	defer cancel()
	stream, err := n.nodes.Connect(ctx)
	if err != nil {
		return err
	}
	first := n.hello()
	if n.peers != (api.PeersDigest{}) {
		first.PeersDigest = slices.Clone(n.peers[:])
	}
	if err := stream.Send(first); err != nil {
		_, err = stream.Recv() // the reason
		return err
	}
	n.parts = &carav1.Routes{}
	n.mu.Lock()
	clear(n.want)
	n.mu.Unlock()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *carav1.ConnectResponse_Welcome:
			connected()
			beats.Go(func() { n.beat(ctx, stream, m.Welcome.GetHeartbeatInterval().AsDuration()) })
		case *carav1.ConnectResponse_Assignment:
			n.assigned(m.Assignment.GetProject())
		case *carav1.ConnectResponse_Unassigned:
			n.unassigned(m.Unassigned)
		case *carav1.ConnectResponse_Routes:
			n.learn(m.Routes)
		case *carav1.ConnectResponse_Synced:
			n.synced.Store(true)
			n.fleet.kick()
		}
	}
}

// learn keeps the digest of the peers that the server has sent. Entries are not kept, so a changed one makes the digest wrong, and
// the next connection gets all peers.
func (n *node) learn(r *carav1.Routes) {
	proto.Merge(n.parts, r)
	if r.GetMore() {
		return
	}
	r, n.parts = n.parts, &carav1.Routes{}
	if r.GetFull() && !r.GetKeepPeers() || len(r.GetRemovedPeers()) > 0 {
		n.peers = api.PeersDigest{}
	}
	for _, p := range r.GetPeers() {
		n.peers.Toggle(p)
	}
}

// hello is the first message: it describes a machine that has room for every project.
func (n *node) hello() *carav1.ConnectRequest {
	return &carav1.ConnectRequest{
		InstanceId: n.name, Capabilities: []string{api.CapabilityIngress, api.CapabilityRoutesOnDemand, api.CapabilityRoutesInParts},
		Heartbeat: &carav1.Heartbeat{
			Info: &carav1.NodeInfo{
				Platform: "linux/amd64", AgentVersion: "fleet", EngineVersion: "20.10", Hostname: n.name, IngressAddress: "192.0.2.1:8443",
				Capacity: &carav1.NodeCapacity{Cpu: "64", Memory: "256Gi", Disk: "1Ti", DiskFree: "1Ti", Subnets: 4096},
				Features: []string{api.FeatureFiles, api.FeatureSecretVars},
			},
			Conditions: []*carav1.Condition{{Type: api.CondEngineReady, Status: api.StatusTrue, Reason: "Answers", Message: "the engine answers"}},
			Volumes:    &carav1.VolumeInventory{},
		},
	}
}

// beat sends heartbeats, and what the node has released.
func (n *node) beat(ctx context.Context, stream carav1.NodeService_ConnectClient, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		released := n.released
		n.released = nil
		n.mu.Unlock()
		err := stream.Send(&carav1.ConnectRequest{InstanceId: n.name, Released: released, Heartbeat: &carav1.Heartbeat{Conditions: n.hello().GetHeartbeat().GetConditions()}})
		if err != nil {
			return // Recv returns the reason
		}
	}
}

// assigned starts a project, or changes it.
func (n *node) assigned(p *carav1.Project) {
	name := p.GetMetadata().GetName()
	n.fleet.heard(name, p)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.want[name] = p
	n.due(name)
}

// unassigned removes a project. If the server waits for that, the next heartbeat says so.
func (n *node) unassigned(u *carav1.Unassigned) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.want, u.GetName())
	if u.GetEpoch() != 0 {
		n.released = append(n.released, &carav1.Released{Name: u.GetName(), Uid: u.GetUid(), Epoch: u.GetEpoch()})
	}
}

// due lets report report a project. mu is held.
func (n *node) due(name string) {
	n.work[name] = struct{}{}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// report tells the server what runs, one project after the other, until ctx ends.
func (n *node) report(ctx context.Context) {
	for {
		select {
		case <-n.wake:
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		work := n.work
		n.work = map[string]struct{}{}
		n.mu.Unlock()
		for name := range work {
			if ctx.Err() != nil {
				return
			}
			n.mu.Lock()
			p := n.want[name]
			n.mu.Unlock()
			if p != nil {
				n.tell(ctx, name, p)
			}
		}
	}
}

// reportAgain is the pause after a report that the server did not take.
const reportAgain = 200 * time.Millisecond

// tell reports one project.
func (n *node) tell(ctx context.Context, name string, p *carav1.Project) {
	if !differs(p) {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := n.client.UpdateProjectStatus(bounded, statusOf(name, p))
	switch api.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
	default:
		return // a refused report is about an older state, and the newer one is on its way
	}
	if testcluster.Pause(ctx, reportAgain) != nil {
		return // the next connection brings all assignments again
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.due(name)
}

// differs reports whether the server does not know yet that a project runs.
func differs(p *carav1.Project) bool {
	st := p.GetStatus()
	return st.GetPhase() != api.PhaseRunning || st.GetObservedGeneration() != p.GetMetadata().GetGeneration()
}

func statusOf(name string, p *carav1.Project) *carav1.UpdateProjectStatusRequest {
	req := &carav1.UpdateProjectStatusRequest{
		Name: name, Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(), ObservedGeneration: p.GetMetadata().GetGeneration(),
	}
	if p.GetStatus().GetPhase() == api.PhaseTerminating {
		req.Phase = api.PhaseTerminated
		return req
	}
	req.Phase = api.PhaseRunning
	req.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusTrue, Reason: api.PhaseRunning, Message: "1 of 1 services up"}}
	for _, s := range p.GetSpec().GetServices() {
		req.Services = append(req.Services, &carav1.ServiceStatus{Name: s.GetName(), State: api.ServiceRunning})
	}
	return req
}
