package apiserver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testlink"
)

// TestAServerThatHangs: a call that needs the agent of a server that hangs ends, and says which server does not answer and what to do. All
// other calls are answered as ever.
func TestAServerThatHangs(t *testing.T) {
	t.Parallel()
	all, r := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	link, err := testlink.Loopback(t.Context(), b.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = link.Close() }) // its connections have errors
	r.add("b", link.Addr())
	agent := connectAgent(t, b.node(t, "n1"), "1")
	agent.synced()
	b.create(t, web("shop"))
	b.bind(t, "shop", "n1")
	agent.assignment()
	if err := a.db.Cache.Wait(t.Context(), b.db.Cache.Revision()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a has a connection over the link", func() bool {
		other := a.cfg.Directory.Servers()["b"]
		return other.GetAddress() == link.Addr() && a.peers.HearsAll()
	})
	projects := carav1.NewProjectServiceClient(a.admin(t))
	bounded, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	open, err := projects.Logs(bounded, &carav1.LogsRequest{Name: "shop", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	attached := agent.attach(agent.openStream().GetStreamId())
	send(t, attached, &carav1.AttachRequest{Log: &carav1.LogLine{Service: "web", Line: "x"}})
	if _, err := open.Recv(); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(ctx context.Context) error{
		"logs": func(ctx context.Context) error {
			call, err := projects.Logs(ctx, &carav1.LogsRequest{Name: "shop"})
			if err == nil {
				_, err = call.Recv()
			}
			return err
		},
		"exec": func(ctx context.Context) error {
			call, err := projects.Exec(ctx)
			if err != nil {
				return err
			}
			if err := call.Send(execStart("shop", "", "sh")); err != nil {
				return err
			}
			_, err = call.Recv()
			return err
		},
		"top": func(ctx context.Context) error {
			call, err := projects.Top(ctx, &carav1.TopRequest{Name: "shop"})
			if err == nil {
				_, err = call.Recv()
			}
			return err
		},
		"history": func(ctx context.Context) error {
			_, err := projects.GetUsageHistory(ctx, &carav1.UsageHistoryRequest{Name: "shop"})
			return err
		},
	}
	end := func(what string, more ...func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var work errgroup.Group
		for name, call := range calls {
			work.Go(func() error { return tellsTheServer(what+": "+name, call(ctx), link.Addr()) })
		}
		for _, call := range more {
			work.Go(func() error { return tellsTheServer(what+": an open stream", call(ctx), link.Addr()) })
		}
		if err := work.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := projects.ListProjects(ctx, &carav1.ListProjectsRequest{}); err != nil {
			t.Errorf("%s: a listing: %v", what, err)
		}
		if _, err := a.listServers(t); err != nil {
			t.Errorf("%s: the servers: %v", what, err)
		}
	}
	link.Hold() // as a process that was stopped
	end("it stops", func(context.Context) error { _, err := open.Recv(); return err })
	end("it accepts connections and says nothing")
	eventually(t, "no stream is left", func() bool { return a.streams.Open() == 0 })
	link.Release()
	eventually(t, "it answers again", func() bool {
		_, ok := state.Get[*carav1.Project](b.db.Cache, "shop")
		return ok && a.peers.HearsAll()
	})
}

// tellsTheServer returns an error unless a call has failed with the address of a server and what to do.
func tellsTheServer(what string, err error, address string) error {
	if api.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "try again") {
		return fmt.Errorf("%s ends with %w", what, err)
	}
	return nil
}
