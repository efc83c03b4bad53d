package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// clients call the servers of a cluster all the time, each with another one first.
type clients struct {
	conns   []*grpc.ClientConn
	token   string
	servers []*testcluster.Cluster
	name    func(string) string

	calls, retried atomic.Int64
	mu             sync.Mutex
	lost           []string        // calls that failed twice
	took           []time.Duration // of the writes that succeeded at once
}

func newClients(t *testing.T, p *testCluster, servers []*testcluster.Cluster) *clients {
	t.Helper()
	token, err := p.Token()
	p.must(err)
	c := &clients{name: p.name, token: token, servers: servers}
	for _, s := range servers {
		conn, err := testcluster.Dial(s.Address(), token)
		p.must(err)
		t.Cleanup(func() { _ = conn.Close() }) // nothing is open any more
		c.conns = append(c.conns, conn)
	}
	return c
}

// once retries a call once, with a new connection to the next server.
func (c *clients) once(first int, call func(*grpc.ClientConn) error) {
	c.calls.Add(1)
	began := time.Now()
	err := call(c.conns[first%len(c.conns)])
	if err == nil {
		c.mu.Lock()
		c.took = append(c.took, time.Since(began))
		c.mu.Unlock()
		return
	}
	c.retried.Add(1)
	again := c.freshly(first+1, call)
	if again != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lost = append(c.lost, fmt.Sprintf("after %s: %v; then: %v", time.Since(began).Round(time.Millisecond), err, again))
	}
}

// freshly makes a call with a new connection to the first server that can be reached, as caractrl does.
func (c *clients) freshly(first int, call func(*grpc.ClientConn) error) error {
	for i := range c.servers {
		address := c.servers[(first+i)%len(c.servers)].Address()
		probe, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			continue
		}
		_ = probe.Close() // it has answered
		conn, err := testcluster.Dial(address, c.token)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // the call is over
		return call(conn)
	}
	return errors.New("no server can be reached")
}

// settles waits until many calls in a row succeed at once, as an operator waits before the next server.
func (c *clients) settles(ctx context.Context) error {
	calls, retried := c.calls.Load(), c.retried.Load()
	return testcluster.WaitFor(ctx, "clients go on", func(context.Context) error {
		if now := c.retried.Load(); now != retried {
			calls, retried = c.calls.Load(), now
		}
		if n := c.calls.Load() - calls; n < 100 {
			return fmt.Errorf("only %d calls since the last one that was repeated", n)
		}
		return nil
	})
}

// run makes calls with this many clients until ctx ends. The write of a client that is repeated is the same write.
func (c *clients) run(ctx context.Context, n int, work func(ctx context.Context, client, i int)) {
	var all sync.WaitGroup
	for client := range n {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				work(context.WithoutCancel(ctx), client, i)
			}
		})
	}
	all.Wait()
}

// mixed reads, lists and applies.
func (c *clients) mixed(ctx context.Context, client, i int) {
	c.once(client+i, func(conn *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		projects := carav1.NewProjectServiceClient(conn)
		var err error
		switch i % 3 {
		case 0:
			_, err = projects.GetProject(ctx, &carav1.GetRequest{Name: c.name("kept")})
		case 1:
			_, err = projects.ListProjects(ctx, &carav1.ListProjectsRequest{})
		default:
			err = c.apply(ctx, conn, fmt.Sprintf("w%d-%d", client, i%30))
		}
		return err
	})
}

// apply writes a project that no node takes.
func (c *clients) apply(ctx context.Context, conn *grpc.ClientConn, name string) error {
	_, err := carav1.NewProjectServiceClient(conn).PutProject(ctx, &carav1.PutProjectRequest{Project: &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject,
		Metadata: &carav1.ObjectMeta{Name: c.name(name)},
		Spec: &carav1.ProjectSpec{NodeSelector: map[string]string{"is": "nowhere"}, Services: []*carav1.Service{{
			Name: "web", Image: testimage.WebV1, Env: []*carav1.EnvVar{{Name: "AT", Value: time.Now().String()}},
		}}},
	}})
	return err
}

// third starts one more server.
func (p *pair) third() {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	p.must(p.add(p.T, testcluster.Config{Dir: p.TempDir(), Bin: p.Bin, ServerFlags: p.servers[0].ServerFlags}).StartBeside(ctx))
}

// percentile returns a share of sorted times.
func percentile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(float64(len(all))*share))]
}
