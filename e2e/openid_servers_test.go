package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testoidc"
)

// TestOpenIDAtTwoServers: a login belongs to the cluster. It begins at one server and ends at another one, each of them renews it, and a
// logout at one of them counts at the other.
func TestOpenIDAtTwoServers(t *testing.T) {
	t.Parallel()
	second, err := testcluster.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	provider := testoidc.New(t, "http://"+second, false)
	provider.Up()
	provider.Set(testoidc.Control{Groups: []string{"dev"}, Seconds: 4})
	p := newServersAt(t, false, second, "--oidc-issuer", provider.Issuer, "--oidc-client-id", testoidc.ClientID, "--oidc-role-map", "dev=viewer",
		"--oidc-redirect-url", "http://"+second+"/ui/login/callback") // as behind one name
	p.pageAtTwoServers(provider)
	p.deviceAtTwoServers(provider)
}

// pageAtTwoServers logs in to the page: the browser begins at the first server and comes back to the second one. Both renew the session.
func (p *pair) pageAtTwoServers(provider *testoidc.Provider) {
	jar, err := cookiejar.New(nil)
	p.must(err)
	// The cookies of a host are those of all its ports, as with a load balancer.
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(method, address string, header http.Header) (*http.Response, string) {
		p.Helper()
		req, err := http.NewRequestWithContext(p.Context(), method, address, nil)
		p.must(err)
		req.Header = header
		resp, err := browser.Do(req)
		p.must(err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		p.must(err)
		return resp, string(text)
	}
	resp, text := ask(http.MethodGet, p.servers[0].URL()+"/ui/login/openid?next=/ui/projects", http.Header{})
	if resp.StatusCode != http.StatusSeeOther {
		p.Fatalf("begin: %s %s", resp.Status, text)
	}
	back, err := url.Parse(provider.Login(resp.Header.Get("Location")))
	p.must(err)
	if back.Host != p.servers[1].Listen {
		p.Fatalf("the provider leads to %s", back.Host)
	}
	if resp, text := ask(http.MethodGet, back.String(), http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}}); resp.StatusCode != http.StatusOK {
		p.Fatalf("the way back: %s %s", resp.Status, text)
	}
	ctx, cancel := p.patience()
	defer cancel()
	began, calls := time.Now(), 0
	p.must(testcluster.WaitFor(ctx, "the session outlives three ID tokens", func(context.Context) error {
		for _, s := range p.servers {
			if resp, text := ask(http.MethodGet, s.URL()+"/ui/", http.Header{}); resp.StatusCode != http.StatusOK || !strings.Contains(text, "user/ada@example.com") {
				return testcluster.Fatal(fmt.Errorf("page %d, at %s, %s after the login: %s", calls, s.Listen, time.Since(began), resp.Status))
			}
			calls++
		}
		if passed := time.Since(began); passed < 12*time.Second {
			return fmt.Errorf("it is %s old", passed)
		}
		return nil
	}))
	if resp, text := ask(http.MethodPost, p.servers[0].URL()+"/ui/logout", http.Header{"Origin": {p.servers[0].URL()}}); resp.StatusCode >= http.StatusBadRequest {
		p.Fatalf("logout: %s %s", resp.Status, text)
	}
	if list := p.sessionsOf(p.servers[1]); len(list) > 0 {
		p.Errorf("after the logout, the other server has %v", list)
	}
}

// sessionsOf lists the sessions of people at a server, when that has all that the first one has.
func (p *pair) sessionsOf(s *testcluster.Cluster) []*carav1.Session {
	p.Helper()
	token, err := p.Token()
	p.must(err)
	revision := ""
	var list *carav1.ListSessionsResponse
	for _, at := range []*testcluster.Cluster{p.servers[0], s} {
		conn, err := testcluster.Dial(at.Address(), token)
		p.must(err)
		defer func() { _ = conn.Close() }() // the test is over
		if revision != "" {                 // this call waits until its server has reached the revision
			watch, err := carav1.NewProjectServiceClient(conn).WatchProjects(p.Context(), &carav1.WatchProjectsRequest{ResourceVersion: revision})
			p.must(err)
			_, err = watch.Recv()
			p.must(err)
		}
		projects, err := carav1.NewProjectServiceClient(conn).ListProjects(p.Context(), &carav1.ListProjectsRequest{})
		p.must(err)
		revision = projects.GetMetadata().GetResourceVersion()
		list, err = carav1.NewSessionServiceClient(conn).ListSessions(p.Context(), &carav1.ListRequest{})
		p.must(err)
	}
	return slices.DeleteFunc(list.GetItems(), func(s *carav1.Session) bool { return s.GetActor() == "user/admin" })
}

// deviceAtTwoServers logs in on another device: it begins at one server and is polled at the other one.
func (p *pair) deviceAtTwoServers(provider *testoidc.Provider) {
	ctx, cancel := p.patience()
	defer cancel()
	stranger := func(s *testcluster.Cluster) carav1.SessionServiceClient {
		conn, err := grpc.NewClient(s.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		p.must(err)
		p.Cleanup(func() { _ = conn.Close() }) // the test is over
		return carav1.NewSessionServiceClient(conn)
	}
	first, second := stranger(p.servers[0]), stranger(p.servers[1])
	begun, err := first.StartDeviceLogin(ctx, &emptypb.Empty{})
	p.must(err)
	provider.Approve(begun.GetCode())
	var login *carav1.FinishLoginResponse
	p.must(testcluster.WaitFor(ctx, "the login is complete at the other server", func(ctx context.Context) error {
		login, err = second.FinishLogin(ctx, &carav1.FinishLoginRequest{Handle: begun.GetHandle()})
		if err == nil && login.GetPending() {
			err = errors.New("it is pending")
		}
		return err
	}))
	var conns []*grpc.ClientConn
	for _, s := range p.servers {
		conn, err := testcluster.Dial(s.Address(), login.GetToken())
		p.must(err)
		p.Cleanup(func() { _ = conn.Close() }) // the test is over
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		if _, err := carav1.NewInfoServiceClient(conn).GetInfo(ctx, &emptypb.Empty{}); err != nil {
			p.Errorf("server %d: %v", i, err)
		}
	}
	if _, err := carav1.NewSessionServiceClient(conns[1]).DeleteSession(ctx, &carav1.DeleteRequest{Name: login.GetSession().GetMetadata().GetName()}); err != nil {
		p.Fatal(err)
	}
	p.must(testcluster.WaitFor(ctx, "the logout counts at the other server", func(ctx context.Context) error {
		if _, err := carav1.NewInfoServiceClient(conns[0]).GetInfo(ctx, &emptypb.Empty{}); api.Code(err) != codes.Unauthenticated {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	}))
}
