package apiserver

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// BenchmarkAgentRoutes is what routes cost the server: 200 agents connect to a cluster with 2,000 projects, which have one host
// each, and then 100 projects change. Bytes are those of the messages, encoded as for the network.
func BenchmarkAgentRoutes(b *testing.B) {
	for name, c := range map[string]struct {
		capabilities []string
		told         int // agents that are told about the change of a route
	}{
		"all":        {[]string{api.CapabilityIngress}, benchAgents},
		"on demand":  {[]string{api.CapabilityIngress, api.CapabilityRoutesOnDemand}, 1},
		"no ingress": {[]string{api.CapabilityRoutesOnDemand}, 0},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				benchmarkAgentRoutes(b, c.capabilities, c.told)
			}
		})
	}
}

const benchAgents = 200

func benchmarkAgentRoutes(b *testing.B, capabilities []string, told int) {
	const agents, projects, changes = benchAgents, 2000, 100
	h := newHouse(b, nil)
	h.fleet(b, agents, projects)
	before, cpu := heap(), cpuTime()
	ctx, cancel := context.WithCancel(b.Context())
	var bytes atomic.Int64
	assigned, synced, changed, ended := make(chan struct{}, changes), make(chan struct{}, agents), make(chan struct{}, agents), make(chan error, agents)
	for n := range agents {
		stream := &countedStream{
			ctx:   identity.WithActor(ctx, identity.Actor{Name: api.PrefixNode + nodeName(n), Role: api.RoleNode}),
			hello: &carav1.ConnectRequest{InstanceId: nodeName(n), Capabilities: capabilities, Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{IngressAddress: fmt.Sprintf("192.0.2.%d:8081", n)}}},
			sent: func(m *carav1.ConnectResponse) {
				encoded, err := proto.Marshal(m)
				if err != nil {
					b.Error(err)
				}
				bytes.Add(int64(len(encoded)))
				switch {
				case m.GetSynced() != nil:
					synced <- struct{}{}
				case m.GetAssignment().GetProject().GetMetadata().GetGeneration() == 2:
					assigned <- struct{}{}
				case m.GetRoutes() != nil:
					changed <- struct{}{}
				}
			},
		}
		go func() { ended <- h.agents.Connect(stream) }()
	}
	for range agents {
		<-synced
	}
	b.ReportMetric(float64(bytes.Swap(0))/agents, "B/agent")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/agents, "cpu-us/agent")
	b.ReportMetric(float64(heap()-before)/agents, "heap-B/agent")
	for range agents { // the whole tables
		<-changed
	}
	cpu = cpuTime()
	for n := range changes {
		h.put(b, fleetProject(n, agents, 8081))
		for range told {
			<-changed
		}
		if told == 0 {
			<-assigned
		}
	}
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/changes, "cpu-us/change")
	b.ReportMetric(float64(bytes.Load())/changes, "B/change")
	cancel()
	for range agents {
		if err := <-ended; ctx.Err() == nil {
			b.Error(err)
		}
	}
	if err := h.stop(); err != nil {
		b.Error(err)
	}
}

func nodeName(n int) string { return fmt.Sprintf("n%d", n) }

// fleetProject is a running project with a host that leads to a port.
func fleetProject(n, nodes int, port int32) *carav1.Project {
	name := fmt.Sprintf("project-%d", n)
	p := shop(name)
	p.Metadata.Uid, p.Metadata.Generation, p.Metadata.CreationTimestamp = name, 1, timestamppb.Now()
	p.Spec.Ingress = []*carav1.Ingress{{Name: "web", Host: name + ".example.com", Target: &carav1.IngressTarget{Service: "web", Port: port}}}
	if port != 8080 {
		p.Metadata.Generation = 2
	}
	p.Status = &carav1.ProjectStatus{Phase: api.PhaseRunning, NodeRef: nodeName(n % nodes), Epoch: 1, Hosts: []string{name + ".example.com"}}
	return p
}

func (h *house) put(t testing.TB, all ...proto.Message) {
	t.Helper()
	err := h.db.Transact(t.Context(), func(tx *state.Tx) error {
		for _, m := range all {
			tx.Put(m)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fleet stores nodes and projects.
func (h *house) fleet(b *testing.B, nodes, projects int) {
	b.Helper()
	for first := 0; first < projects; first += 100 {
		var all []proto.Message
		for n := first; n < first+100; n++ {
			all = append(all, fleetProject(n, nodes, 8080))
		}
		h.put(b, all...)
	}
	for first := 0; first < nodes; first += 100 {
		var all []proto.Message
		for n := first; n < first+100; n++ {
			all = append(all, &carav1.Node{
				ApiVersion: api.APIVersion, Kind: api.KindNode, Metadata: &carav1.ObjectMeta{Name: nodeName(n), Uid: nodeName(n)},
				Spec: &carav1.NodeSpec{}, Status: &carav1.NodeStatus{State: api.NodeReady, Info: &carav1.NodeInfo{IngressAddress: fmt.Sprintf("192.0.2.%d:8081", n)}},
			})
		}
		h.put(b, all...)
	}
}

// countedStream is the server's side of an agent's stream that sends only its first message.
type countedStream struct {
	grpc.ServerStream

	ctx   context.Context
	hello *carav1.ConnectRequest
	sent  func(*carav1.ConnectResponse)
}

func (s *countedStream) Context() context.Context { return s.ctx }

func (s *countedStream) Recv() (*carav1.ConnectRequest, error) {
	if hello := s.hello; hello != nil {
		s.hello = nil
		return hello, nil
	}
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

func (s *countedStream) Send(m *carav1.ConnectResponse) error {
	s.sent(m)
	return nil
}
