package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/scheduler"
	"github.com/caravanserai/cara/store/etcd"
)

// BenchmarkBind is the scheduler's loop against a server with a store on a disk: 10,000 projects wait for 1,000 nodes,
// and the last of them is bound. Each bind is a compare-and-swap, synced. scheduler.BenchmarkPlace is the decision
// alone.
func BenchmarkBind(b *testing.B) {
	for _, size := range []struct {
		store           string
		nodes, projects int
	}{{"pebble", 1, 1000}, {"pebble", 1000, 10_000}, {"etcd", 1000, 10_000}} {
		b.Run(fmt.Sprintf("%s/nodes=%d/projects=%d", size.store, size.nodes, size.projects), func(b *testing.B) {
			choose := func(*apiserver.Config) {}
			if size.store == "etcd" {
				choose = onEtcd(b)
			}
			binds, cpu := 0, time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				h := newHouse(b, func(c *apiserver.Config) {
					c.Authenticator = byName{}
					choose(c)
				})
				h.nodes(b, size.nodes)
				h.projects(b, size.projects)
				seen := h.follow(b, h.inside(b, "gc"), api.KindProject)
				s := scheduler.New(scheduler.Config{Conn: h.inside(b, "scheduler"), Logger: quiet()})
				before := processor()
				b.StartTimer()
				ctx, cancel := context.WithCancel(b.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx) }()
				left := loop.All[*carav1.Project](seen.Mirror)
				seen.until(b, func() bool { // projects only ever become bound, so look at each until it is
					for len(left) > 0 && bound(seen, left[len(left)-1].GetMetadata().GetName()) {
						left = left[:len(left)-1]
					}
					return len(left) == 0
				})
				b.StopTimer()
				cpu += processor() - before
				cancel()
				must(b, <-ended)
				h.close()
				binds += size.projects
				b.StartTimer()
			}
			b.ReportMetric(float64(binds)/b.Elapsed().Seconds(), "binds/s")
			b.ReportMetric(float64(cpu.Microseconds())/float64(binds), "cpu-µs/bind")
		})
	}
}

// onEtcd starts three members, which share the disk here, and lets servers use them.
func onEtcd(b *testing.B) func(*apiserver.Config) {
	b.Helper()
	members := testetcd.Start(b, testetcd.Config{Members: 3})
	servers := 0
	return func(c *apiserver.Config) {
		servers++
		st, err := etcd.Open(b.Context(), etcd.Config{Endpoints: members.Endpoints, Prefix: fmt.Sprintf("/bench-%d/", servers), Logger: quiet()})
		must(b, err)
		b.Cleanup(func() { must(b, st.Close()) })
		c.Store = st
	}
}

func bound(p *picture, name string) bool {
	project, ok := loop.Get[*carav1.Project](p.Mirror, name)
	return ok && project.GetStatus().GetPhase() == api.PhaseScheduled
}

// nodes registers n of them, as large as machines are, and lets each give a sign of life.
func (h *house) nodes(b *testing.B, n int) {
	b.Helper()
	h.token = "admin"
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(h.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(b, err)
	h.closing(b, conn)
	var all []proto.Message
	for i := range n {
		all = append(all, &carav1.Node{
			ApiVersion: api.APIVersion, Kind: api.KindNode, Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("n-%d", i)},
		})
	}
	h.apply(b, all...)
	size := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		name := fmt.Sprintf("n-%d", i)
		ctx := metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer node/"+name)
		ctx, leave := context.WithCancel(ctx)
		stream, err := carav1.NewNodeServiceClient(conn).Connect(ctx)
		must(b, err)
		must(b, stream.Send(&carav1.ConnectRequest{InstanceId: name, Heartbeat: &carav1.Heartbeat{
			Info: &carav1.NodeInfo{Platform: "linux/amd64", Capacity: &carav1.NodeCapacity{
				Cpu: fmt.Sprint(4 + size.IntN(60)), Memory: fmt.Sprintf("%dGi", 16+size.IntN(240)), Subnets: 2048,
			}},
			Conditions: []*carav1.Condition{{Type: api.CondEngineReady, Status: api.StatusTrue, Reason: "Answers", Message: "the engine answers"}},
		}}))
		_, err = stream.Recv() // the welcome: the heartbeat was taken
		must(b, err)
		leave()
	}
}

// byName lets everybody be who the token says. It saves a thousand nodes the joining, which is not measured here.
type byName struct{}

func (byName) Authenticate(ctx context.Context) (identity.Actor, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	name := strings.TrimPrefix(strings.Join(md.Get("authorization"), ""), "Bearer ")
	switch {
	case strings.HasPrefix(name, "node/"):
		return identity.Actor{Name: name, Role: api.RoleNode}, nil
	case name == "admin":
		return identity.Actor{Name: "user/admin", Role: api.RoleAdmin}, nil
	default:
		return identity.Actor{}, api.Unauthenticated("nobody is called %q", name)
	}
}
