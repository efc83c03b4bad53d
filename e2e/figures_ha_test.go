package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// TestFiguresHA measures what docs/performance.md says about several servers; `make bench-ha` runs it. It asserts no time.
func TestFiguresHA(t *testing.T) {
	runs, _ := strconv.Atoi(os.Getenv("CARA_HA_FIGURES"))
	if runs < 1 {
		t.Skip("CARA_HA_FIGURES is the number of runs")
	}
	alone := newWorld(t, options{})
	creates(t, "pebble", newClients(t, alone, []*testcluster.Cluster{alone.Cluster}))
	p := newServers(t, false)
	p.third()
	c := newClients(t, p.testCluster, p.servers)
	creates(t, "three members of etcd", &clients{name: c.name, conns: c.conns[:1]})
	creates(t, "three members of etcd, at three servers", c)

	figures := map[string][]time.Duration{}
	took := func(what string, since time.Time) { figures[what] = append(figures[what], time.Since(since)) }
	working := 0
	for run := range runs {
		t.Logf("run %d", run)
		at := time.Now()
		p.must(p.servers[working].Server.Kill())
		name := fmt.Sprintf("killed-%d", run)
		p.lasts(c, name, working)
		took("the server with the loops is killed -> a write succeeds", at)
		p.scheduled(c, name, working)
		took("the server with the loops is killed -> the loops work", at)
		ctx, cancel := p.patience()
		p.must(p.servers[working].StartBeside(ctx))

		leader := p.etcd.Leader()
		at = time.Now()
		p.etcd.Kill(leader)
		p.firstOf(c, fmt.Sprintf("etcd-%d", run))
		took("the leader of etcd is killed -> a write succeeds", at)
		p.etcd.Run(leader)
		working = p.working(ctx)
		cancel()
	}
	for what, all := range figures {
		slices.Sort(all)
		t.Logf("%s: median %.2f s, from %.2f to %.2f s", what, all[len(all)/2].Seconds(), all[0].Seconds(), all[len(all)-1].Seconds())
	}
	p.Server = p.servers[working].Server
}

// creates measures writes of 16 clients for some seconds.
func creates(t *testing.T, what string, c *clients) {
	t.Helper()
	const long = 5 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	began := time.Now()
	c.run(ctx, 16, func(ctx context.Context, client, i int) {
		began := time.Now()
		err := c.apply(ctx, c.conns[client%len(c.conns)], fmt.Sprintf("c%d-%d", client, i))
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.lost = append(c.lost, err.Error())
		} else {
			c.took = append(c.took, time.Since(began))
		}
	})
	rate := float64(len(c.took)) / time.Since(began).Seconds()
	t.Logf("%s: 16 clients, %.0f creates/s, p50 %s, p99 %s, %d failed", what, rate, percentile(c.took, 0.5).Round(10*time.Microsecond), percentile(c.took, 0.99).Round(10*time.Microsecond), len(c.lost))
	c.took, c.lost = nil, nil
}

// working returns the server that runs the scheduler.
func (p *pair) working(ctx context.Context) int {
	p.Helper()
	found := -1
	p.must(testcluster.WaitFor(ctx, "a server runs the scheduler", func(ctx context.Context) error {
		list := p.anywhere(ctx, "get", "servers").Stdout
		for i, s := range p.servers {
			for line := range strings.Lines(list) {
				if strings.HasPrefix(line, s.Listen+" ") && strings.Contains(line, "scheduler") {
					found = i
					return nil
				}
			}
		}
		return errors.New(list)
	}))
	return found
}

// lasts waits until a write succeeds at some server, with a new connection each time.
func (p *pair) lasts(c *clients, name string, without int) {
	p.Helper()
	p.somewhere(c, "a write succeeds", without, func(ctx context.Context, conn *grpc.ClientConn) error { return c.apply(ctx, conn, name) })
}

// firstOf starts a write every 100 ms until one of them has succeeded: one that has begun without a leader of etcd takes 7 s.
func (p *pair) firstOf(c *clients, name string) {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	done := make(chan struct{}, 1)
	for i := 0; ; i++ {
		go func() {
			if c.freshly(i, func(conn *grpc.ClientConn) error { return c.apply(ctx, conn, fmt.Sprintf("%s-%d", name, i)) }) == nil {
				select {
				case done <- struct{}{}:
				default:
				}
			}
		}()
		select {
		case <-done:
			return
		case <-ctx.Done():
			p.Fatal("no write succeeds")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// scheduled waits until the scheduler has said that no node fits a project.
func (p *pair) scheduled(c *clients, name string, without int) {
	p.Helper()
	p.somewhere(c, "the scheduler has decided", without, func(ctx context.Context, conn *grpc.ClientConn) error {
		project, err := carav1.NewProjectServiceClient(conn).GetProject(ctx, &carav1.GetRequest{Name: c.name(name)})
		c := api.FindCondition(project.GetStatus().GetConditions(), api.CondScheduled)
		if err == nil && (c == nil || c.GetReason() == api.ReasonWaiting) { // a new project waits
			err = fmt.Errorf("it says %v", c)
		}
		return err
	})
}

// somewhere repeats a call at the servers in turn until it succeeds.
func (p *pair) somewhere(c *clients, what string, without int, call func(context.Context, *grpc.ClientConn) error) {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	turn := 0
	p.must(testcluster.WaitFor(ctx, what, func(ctx context.Context) error {
		if turn++; turn%len(p.servers) == without {
			turn++
		}
		return c.freshly(turn, func(conn *grpc.ClientConn) error {
			bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return call(bounded, conn)
		})
	}))
}
