package apiserver

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/peers"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
	"github.com/caravanserai/cara/store"
)

// another is one more server over the store of the first one.
func (c *cluster) another(t *testing.T, r *registry, id string, st store.Store) *cluster {
	t.Helper()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own, err := identity.Open(identity.Config{DataDir: c.dir}) // with certificates of its own
	if err != nil {
		t.Fatal(err)
	}
	logs := &logBuffer{}
	s, err := New(Config{
		Store: recordStore{st, r}, Identity: own, Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Hosts: c.cfg.Hosts, DrainTimeout: 5 * time.Second, Directory: r.add(id, inner.Addr().String()),
		Now: func() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, identity.NewListener(distance{inner}, own.TLSConfig())) }()
	out := &cluster{Server: s, id: own, addr: inner.Addr().String(), dir: c.dir, log: logs}
	out.stop = sync.OnceFunc(func() {
		r.lose(id)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(out.stop)
	<-s.db.Cache.Loaded
	return out
}

// joined is the connection of one agent to each of some servers.
func joined(t *testing.T, node string, all ...*cluster) (conns []*grpc.ClientConn) {
	t.Helper()
	at := joinAt(t, all[0], node)
	for _, c := range all {
		conns = append(conns, at(c))
	}
	return conns
}

// TestCallsReachTheAgent: each call that needs an agent works at a server that the agent is not connected to.
func TestCallsReachTheAgent(t *testing.T) {
	all, _ := newServers(t, "a", "b", "c")
	a, b := all["a"], all["b"]
	agent := connectAgent(t, a.node(t, "n1"), "1")
	agent.synced()
	a.create(t, web("shop"))
	a.bind(t, "shop", "n1")
	agent.assignment()
	projects := carav1.NewProjectServiceClient(b.admin(t))
	eventually(t, "b knows where the project is", func() bool {
		p, _ := state.Get[*carav1.Project](b.db.Cache, "shop")
		return p.GetStatus().GetNodeRef() == "n1"
	})
	exit := &carav1.AttachRequest{Exec: &carav1.ExecResponse{Message: &carav1.ExecResponse_ExitCode{ExitCode: 7}}}
	// The agent's answer to each kind of stream, as the agent of this node.
	answers := map[string]func(t *testing.T, agent carav1.NodeService_AttachClient){
		"Exec": func(t *testing.T, agent carav1.NodeService_AttachClient) {
			if m, err := agent.Recv(); err != nil || string(m.GetExec().GetStdin()) != "hello" {
				t.Errorf("input: %v, %v", m, err)
			}
			send(t, agent, stdout([]byte("out")), exit)
		},
		"Logs": func(t *testing.T, agent carav1.NodeService_AttachClient) {
			send(t, agent, &carav1.AttachRequest{Log: &carav1.LogLine{Service: "web", Line: "hello"}})
		},
		"Top": func(t *testing.T, agent carav1.NodeService_AttachClient) {
			send(t, agent, &carav1.AttachRequest{Top: &carav1.TopResponse{Services: []*carav1.ServiceUsage{{Service: "web"}}}})
		},
		"GetUsageHistory": func(t *testing.T, agent carav1.NodeService_AttachClient) {
			send(t, agent, &carav1.AttachRequest{UsageHistory: &carav1.ServiceUsageHistory{Service: "web"}})
		},
		"PortForward": func(t *testing.T, agent carav1.NodeService_AttachClient) {
			m, err := agent.Recv()
			if err != nil {
				t.Error(err)
			}
			send(t, agent, &carav1.AttachRequest{PortForward: &carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Data{Data: m.GetPortForward().GetData()}}})
		},
	}
	calls := map[string]func(ctx context.Context) (string, error){
		"Exec": func(ctx context.Context) (string, error) {
			call, err := projects.Exec(ctx)
			if err != nil {
				return "", err
			}
			if err := errors.Join(call.Send(execStart("shop", "", "sh")), call.Send(execStdin([]byte("hello")))); err != nil {
				return "", err
			}
			first, err := call.Recv()
			if err != nil {
				return "", err
			}
			last, err := call.Recv()
			if last.GetExitCode() != 7 {
				err = errors.Join(err, errors.New("another exit code"))
			}
			if _, end := call.Recv(); !errors.Is(end, io.EOF) { // a call that is cancelled before its end is one that failed
				err = errors.Join(err, end)
			}
			return string(first.GetStdout()), err
		},
		"Logs": func(ctx context.Context) (string, error) {
			call, err := projects.Logs(ctx, &carav1.LogsRequest{Name: "shop"})
			if err != nil {
				return "", err
			}
			m, err := call.Recv()
			if err == nil {
				_, end := call.Recv()
				if !errors.Is(end, io.EOF) {
					err = end
				}
			}
			return m.GetLine(), err
		},
		"Top": func(ctx context.Context) (string, error) {
			call, err := projects.Top(ctx, &carav1.TopRequest{Name: "shop"})
			if err != nil {
				return "", err
			}
			m, err := call.Recv()
			return m.String(), err
		},
		"GetUsageHistory": func(ctx context.Context) (string, error) {
			m, err := projects.GetUsageHistory(ctx, &carav1.UsageHistoryRequest{Name: "shop"})
			return m.String(), err
		},
		"PortForward": func(ctx context.Context) (string, error) {
			call, err := projects.PortForward(ctx)
			if err != nil {
				return "", err
			}
			if err := call.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Start{Start: &carav1.PortForwardStart{Name: "shop", Port: 80}}}); err != nil {
				return "", err
			}
			if _, err := call.Header(); err != nil {
				return "", err
			}
			if err := call.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Data{Data: []byte("ping")}}); err != nil {
				return "", err
			}
			m, err := call.Recv()
			return string(m.GetData()), err
		},
	}
	for name, m := range methods {
		if m.remote != (calls[shortMethod(name)] != nil) {
			t.Errorf("%s needs an agent, or not: the table says %v", name, m.remote)
		}
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				attached := agent.attach(agent.openStream().GetStreamId())
				answers[name](t, attached)
				if err := attached.CloseSend(); err != nil {
					t.Error(err)
				}
			}()
			text, err := call(ctx)
			if err != nil || text == "" {
				t.Errorf("got %q, %v", text, err)
			}
			cancel()
			<-answered
		})
	}
	eventually(t, "no stream is left", func() bool { return a.streams.Open()+b.streams.Open() == 0 })
	eventually(t, "the asked server writes the line of the audit", func() bool {
		return strings.Contains(b.log.String(), "method=Exec object=shop outcome=")
	})
	if strings.Contains(a.log.String(), "level=INFO msg=audit actor=user/admin method=Exec") {
		t.Error("the other server writes the line of the audit, too")
	}
}

// hidden is a prefix of keys that a sharedStore does not show.
const hidden = "hidden/"

// sharedStore counts the changes of keys that it does not show, as etcd does with the keys of its other users.
type sharedStore struct{ store.Store }

func (s sharedStore) List(ctx context.Context, prefix string, o store.ListOptions) (store.Page, error) {
	page, err := s.Store.List(ctx, prefix, o)
	page.KVs = slices.DeleteFunc(page.KVs, func(kv store.KV) bool { return strings.HasPrefix(kv.Key, hidden) })
	return page, err
}

func (s sharedStore) Watch(ctx context.Context, after int64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range s.Store.Watch(ctx, after) {
			if len(c.Events) > 0 && strings.HasPrefix(c.Events[0].KV.Key, hidden) {
				continue
			}
			c.More = false // a hidden change may be next
			if !yield(c, err) {
				return
			}
		}
	}
}

// TestCallsAfterAListing: a server that has just listed the store is at a revision that no other server may reach. Its calls reach the
// agent nevertheless.
func TestCallsAfterAListing(t *testing.T) {
	first, r := newCluster(t, nil), newRegistry()
	st := sharedStore{first.db.Store}
	b := first.another(t, r, "b", st)
	agent := connectAgent(t, b.node(t, "n1"), "1")
	agent.synced()
	b.create(t, web("shop"))
	b.bind(t, "shop", "n1")
	agent.assignment()
	if _, err := st.Commit(t.Context(), store.Txn{Do: []store.Op{{Key: hidden + "x", Value: []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	a := first.another(t, r, "a", st)
	if a.db.Cache.Followed() == 0 {
		t.Error("the listing does not tell how far the log is")
	}
	eventually(t, "the servers hear of each other", func() bool { return a.peers.HearsAll() && b.peers.HearsAll() })
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		attached := agent.attach(agent.openStream().GetStreamId())
		send(t, attached, &carav1.AttachRequest{UsageHistory: &carav1.ServiceUsageHistory{Service: "web"}})
		if err := attached.CloseSend(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := carav1.NewProjectServiceClient(a.admin(t)).GetUsageHistory(t.Context(), &carav1.UsageHistoryRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	<-answered
	if a.db.Cache.Revision() <= b.db.Cache.Revision() {
		t.Error("the other server has reached the revision of the listing")
	}
}

func send(t *testing.T, agent carav1.NodeService_AttachClient, all ...*carav1.AttachRequest) {
	t.Helper()
	for _, m := range all {
		if err := agent.Send(m); err != nil {
			t.Error(err)
		}
	}
}

// TestACallGoesToOneOtherServerOnly: servers that send each other to an agent that is at neither of them refuse.
func TestACallGoesToOneOtherServerOnly(t *testing.T) {
	all, r := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	agent := connectAgent(t, a.node(t, "n1"), "1")
	agent.synced()
	a.create(t, web("shop"))
	a.bind(t, "shop", "n1")
	if err := b.db.Cache.Wait(t.Context(), a.db.Cache.Revision()); err != nil {
		t.Fatal(err)
	}
	// Each server believes that the other one has the agent.
	a.streams.Servers.Directory, a.streams.Sessions = allAt{r.add("a", a.addr), "b"}, new(dispatch.Sessions)
	b.streams.Servers.Directory = allAt{r.add("b", b.addr), "a"}
	_, err := carav1.NewProjectServiceClient(b.admin(t)).GetUsageHistory(t.Context(), &carav1.UsageHistoryRequest{Name: "shop"})
	testproblem.Want(t, err, codes.Unavailable, "")
	if !strings.Contains(err.Error(), "node n1 is not connected") {
		t.Errorf("the caller is told %v", err)
	}
}

// allAt is a directory in which all agents are at one other server.
type allAt struct {
	directory.Directory
	server string
}

func (e allAt) Holder(string) (directory.Holder, bool) {
	return directory.Holder{Server: e.server}, true
}

// TestErrorsComeBack: what the other server refuses, and what the agent says, comes to the caller with its details. The other
// server looks up the caller's rights itself.
func TestErrorsComeBack(t *testing.T) {
	all, _ := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	agent := connectAgent(t, a.node(t, "n1"), "1")
	agent.synced()
	a.create(t, web("shop"))
	a.bind(t, "shop", "n1")
	agent.assignment()
	projects := carav1.NewProjectServiceClient(b.admin(t))
	logs := func() error {
		call, err := projects.Logs(t.Context(), &carav1.LogsRequest{Name: "shop"})
		if err != nil {
			return err
		}
		_, err = call.Recv()
		return err
	}
	eventually(t, "b knows where the project is", func() bool {
		p, _ := state.Get[*carav1.Project](b.db.Cache, "shop")
		return p.GetStatus().GetNodeRef() == "n1"
	})
	go func() {
		send(t, agent.attach(agent.openStream().GetStreamId()), &carav1.AttachRequest{Error: "service web is not running", Code: int32(codes.FailedPrecondition)})
	}()
	testproblem.Want(t, logs(), codes.FailedPrecondition, api.TitleConflict)

	// A caller who leaves ends the agent's stream.
	ctx, leave := context.WithCancel(t.Context())
	call, err := projects.Logs(ctx, &carav1.LogsRequest{Name: "shop", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	attached := agent.attach(agent.openStream().GetStreamId())
	send(t, attached, &carav1.AttachRequest{Log: &carav1.LogLine{Service: "web", Line: "x"}})
	if _, err := call.Recv(); err != nil {
		t.Fatal(err)
	}
	leave()
	for err = nil; err == nil; {
		_, err = attached.Recv()
	}
	eventually(t, "no stream is left", func() bool { return a.streams.Open()+b.streams.Open() == 0 })

	// A server that shuts down ends what it carries to another one.
	call, err = projects.Logs(t.Context(), &carav1.LogsRequest{Name: "shop", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	send(t, agent.attach(agent.openStream().GetStreamId()), &carav1.AttachRequest{Log: &carav1.LogLine{Service: "web", Line: "x"}})
	if _, err := call.Recv(); err != nil {
		t.Fatal(err)
	}
	b.stop()
	_, err = call.Recv()
	testproblem.Want(t, err, codes.Unavailable, "")
	if !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("the caller is told %v", err)
	}
}

// TestServersBelieveOnlyServers: nobody else can call on behalf of others, or hear the news, and a server can do nothing else.
func TestServersBelieveOnlyServers(t *testing.T) {
	all, _ := newServers(t, "a", "b")
	a, b := all["a"], all["b"]
	node := a.node(t, "n1")
	server, err := grpc.NewClient(a.addr, grpc.WithTransportCredentials(credentials.NewTLS(b.id.PeerTLSConfig("h2"))))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	behalf := func(call *carav1.PeerCall) context.Context {
		ctx, err := peers.WithCall(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		return ctx
	}
	admin := &carav1.PeerCall{Server: "b", Actor: "user/admin", Token: "admin"}
	top := func(conn grpc.ClientConnInterface, ctx context.Context) error {
		_, err := carav1.NewProjectServiceClient(conn).GetUsageHistory(ctx, &carav1.UsageHistoryRequest{Name: "shop"})
		return err
	}
	news := func(conn grpc.ClientConnInterface) error {
		stream, err := carav1.NewPeerServiceClient(conn).FollowPeer(t.Context(), &carav1.FollowPeerRequest{Server: "x"})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	tests := []struct {
		name string
		err  error
		code codes.Code
	}{
		{"a server for the administrator", top(server, behalf(admin)), codes.NotFound}, // there is no such project
		{"nobody for the administrator", top(a.dial(t, ""), behalf(admin)), codes.Unauthenticated},
		{"a node for the administrator", top(node, behalf(admin)), codes.Unauthenticated},
		{"a person for the administrator", top(a.admin(t), behalf(admin)), codes.Unauthenticated},
		{"a server for a token that is not there", top(server, behalf(&carav1.PeerCall{Actor: "user/x", Token: "x"})), codes.Unauthenticated},
		{"a server for another person", top(server, behalf(&carav1.PeerCall{Actor: "user/x", Token: "admin"})), codes.Unauthenticated},
		{"a server for nobody", top(server, behalf(&carav1.PeerCall{})), codes.Unauthenticated},
		{"a server for a token to join with", top(server, behalf(&carav1.PeerCall{Actor: "user/join", Token: "join"})), codes.Unauthenticated},
		{"a server without a caller", top(server, t.Context()), codes.PermissionDenied},
		{"a server from the future", top(server, behalf(&carav1.PeerCall{Actor: "user/admin", Token: "admin", Revision: 1 << 60})), codes.Unavailable},
		{"not a message", top(server, metadata.AppendToOutgoingContext(t.Context(), "cara-call-bin", "\xff\xff")), codes.InvalidArgument},
		{"news for a node", news(node), codes.PermissionDenied},
		{"news for the administrator", news(a.admin(t)), codes.PermissionDenied},
		{"news for nobody", news(a.dial(t, "")), codes.Unauthenticated},
		{"news for a server", news(server), codes.OK},
	}
	for _, test := range tests {
		if api.Code(test.err) != test.code {
			t.Errorf("%s: %v, want %v", test.name, test.err, test.code)
		}
	}
	_, err = carav1.NewTokenServiceClient(server).ListTokens(behalf(admin), &carav1.ListRequest{})
	testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)
	_, err = carav1.NewInfoServiceClient(server).GetInfo(t.Context(), &emptypb.Empty{})
	testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)
}
