package apiserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestStreamsEndWithTheirToken: when a token is revoked, all its open streams end with an error.
func TestStreamsEndWithTheirToken(t *testing.T) {
	var late atomic.Int64 // how far the server's clock is ahead
	now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	for how, lose := range map[string]func(t *testing.T, w *execWorld){
		"it is deleted": func(t *testing.T, w *execWorld) {
			if _, err := carav1.NewTokenServiceClient(w.admin(t)).DeleteToken(t.Context(), &carav1.DeleteRequest{Name: "guest"}); err != nil {
				t.Fatal(err)
			}
		},
		"it expires": func(*testing.T, *execWorld) { late.Store(int64(2 * time.Hour)) },
	} {
		t.Run(how, func(t *testing.T) {
			late.Store(0)
			c := newCluster(t, func(cfg *Config) { cfg.Now = now })
			agent := connectAgent(t, c.node(t, "n1"), "a")
			agent.synced()
			c.create(t, web("shop"))
			c.bind(t, "shop", "n1")
			w := &execWorld{cluster: c, agent: agent}
			made, err := carav1.NewTokenServiceClient(c.admin(t)).CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{
				Metadata: &carav1.ObjectMeta{Name: "guest"}, Role: "deployer", ExpireAt: timestamppb.New(time.Now().Add(time.Hour)),
			}})
			if err != nil {
				t.Fatal(err)
			}
			ends := w.openEverything(t, made.GetSecret())
			others := c.watch(t, c.admin(t))
			lose(t, w)
			for name, end := range ends {
				if err := end(); err == nil || api.Code(err) != codes.Unauthenticated && !strings.Contains(err.Error(), `"status":401`) {
					t.Errorf("%s ended with %v", name, err)
				}
			}
			if err := others(); err != nil {
				t.Errorf("the watch of another caller: %v", err)
			}
		})
	}
}

// watch opens a watch. The returned function checks whether the watch is still open.
func (c *cluster) watch(t *testing.T, conn grpc.ClientConnInterface) func() error {
	t.Helper()
	stream, err := carav1.NewWatchServiceClient(conn).Watch(t.Context(), &carav1.WatchRequest{Kinds: []string{api.KindProject}})
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		c.create(t, web("later"))
		for {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			for _, ch := range m.GetChanges() {
				if ch.GetObject().GetProject().GetMetadata().GetName() == "later" {
					return nil
				}
			}
		}
	}
}

// openEverything opens a stream of each kind. Each returned function waits for the end of one of them.
func (w *execWorld) openEverything(t *testing.T, token string) map[string]func() error {
	t.Helper()
	conn := w.dial(t, token)
	projects := carav1.NewProjectServiceClient(conn)
	ends := map[string]func() error{}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	watch, err := carav1.NewWatchServiceClient(conn).Watch(t.Context(), &carav1.WatchRequest{Kinds: []string{api.KindProject}})
	must(err)
	_, err = watch.Recv()
	must(err)
	ends["watch over gRPC"] = untilEnd(watch.Recv)

	logs, err := projects.Logs(t.Context(), &carav1.LogsRequest{Name: "shop", Follow: true})
	must(err)
	w.agent.attach(w.agent.openStream().GetStreamId())
	ends["logs over gRPC"] = untilEnd(logs.Recv)

	exec, err := projects.Exec(t.Context())
	must(err)
	must(exec.Send(execStart("shop", "", "cat")))
	w.agent.attach(w.agent.openStream().GetStreamId())
	ends["exec over gRPC"] = untilEnd(exec.Recv)

	forward, err := projects.PortForward(t.Context())
	must(err)
	must(forward.Send(&carav1.PortForwardRequest{Message: &carav1.PortForwardRequest_Start{Start: &carav1.PortForwardStart{Name: "shop", Port: 80}}}))
	w.agent.attach(w.agent.openStream().GetStreamId())
	ends["port-forward over gRPC"] = untilEnd(forward.Recv)

	silent, err := projects.Exec(t.Context()) // its first message never comes
	must(err)
	ends["exec that has not begun"] = func() error { // it is cut off, because it cannot get an error
		_, err := silent.Recv()
		if err == nil || api.Code(err) == codes.Canceled {
			return err
		}
		return api.Errorf(codes.Unauthenticated, "", "%v", err)
	}
	ends["watch over REST"] = w.restLines(t, token, http.MethodGet, "/api/v1/projects/watch", nil)
	body, send := io.Pipe()
	t.Cleanup(func() { _ = send.Close() })
	go func() { _, _ = io.WriteString(send, `{"start":{"command":["cat"],"stdin":true}}`+"\n") }()
	ends["exec over REST"] = w.restLines(t, token, http.MethodPost, "/api/v1/projects/shop/exec", body)
	w.agent.attach(w.agent.openStream().GetStreamId())
	return ends
}

// untilEnd receives until there is an error.
func untilEnd[M any](recv func() (M, error)) func() error {
	return func() error {
		for {
			if _, err := recv(); err != nil {
				return err
			}
		}
	}
}

// restLines opens a stream of lines. The error that it ends with has the last line.
func (w *execWorld) restLines(t *testing.T, token, method, path string, body io.Reader) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, method, "http://"+w.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{}
	type end struct{ err error }
	ended := make(chan end, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			ended <- end{err}
			return
		}
		defer resp.Body.Close()
		last := ""
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			last = lines.Text()
		}
		ended <- end{fmt.Errorf("the last line: %s", last)}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		transport.CloseIdleConnections()
	})
	return func() error { return (<-ended).err }
}

// TestATokenMayGoBeforeItsStreamCounts: a stream whose token was deleted between the authentication and the counting of the
// call is rejected. The deletion ends only counted calls.
func TestATokenMayGoBeforeItsStreamCounts(t *testing.T) {
	d := newDoor(t, newHouse(t, nil))
	guest := identity.Actor{Name: "user/guest", Role: api.RoleViewer}
	for gone, want := range map[bool]codes.Code{true: codes.Unauthenticated, false: codes.OK} {
		v := &admission.Visit{Actor: guest, Again: func() (identity.Actor, error) {
			if gone {
				return identity.Actor{}, api.Unauthenticated("the token was deleted")
			}
			return guest, nil
		}}
		if err := d.enter(v, route{stream: true}); api.Code(err) != want {
			t.Errorf("the token is gone: %v; enter: %v, want %v", gone, err, want)
		}
		probe := &admission.Visit{Actor: guest}
		if counted := d.visits.Enter(probe, 1) != nil; counted == gone {
			t.Errorf("the token is gone: %v; the call is counted: %v", gone, counted)
		}
		d.visits.Leave(probe)
		d.visits.Leave(v)
	}
}
