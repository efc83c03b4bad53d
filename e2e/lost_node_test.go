package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// silence makes a node's machine dead for all others: no packet reaches it, and none leaves it. Nobody is told. heal ends that.
func (w *testCluster) silence(second *testdocker.Second) (heal func()) {
	w.Helper()
	rules := func(ctx context.Context, verb string) error {
		var all error
		for _, rule := range [][]string{{"INPUT", "-i"}, {"OUTPUT", "-o"}} {
			out, err := second.Command(ctx, "iptables", "-w", verb, rule[0], rule[1], "eth0", "-j", "DROP").CombinedOutput()
			if err != nil {
				all = errors.Join(all, fmt.Errorf("iptables %s %v: %w: %s", verb, rule, err, out))
			}
		}
		return all
	}
	w.must(rules(w.Context(), "-I"))
	once := sync.OnceValue(func() error { return rules(context.WithoutCancel(w.Context()), "-D") })
	w.Cleanup(func() {
		if err := once(); err != nil {
			w.Error(err)
		}
	})
	return func() { w.Helper(); w.must(once()) }
}

// errSaid is an answer of an agent that says why there is no other.
var errSaid = errors.New("the agent says why it has no answer")

// lostClient is one client of a service whose node dies.
type lostClient struct {
	name       string
	do         func() error
	made, said atomic.Int64
	whole      *atomic.Bool // from then on, each request must succeed
}

// run sends requests until ended. It fails at an answer that is false.
func (c *lostClient) run(ended *atomic.Bool) error {
	for !ended.Load() {
		whole := c.whole.Load()
		switch err := c.do(); {
		case err == nil:
			c.made.Add(1)
		case errors.Is(err, errSaid) && !whole:
			c.said.Add(1)
		default:
			ended.Store(true)
			return fmt.Errorf("%s after %d requests and %d that the agent answered: %w", c.name, c.made.Load(), c.said.Load(), err)
		}
	}
	return nil
}

// page requests a page of a web service, whose answer has this text.
func (i *internet) page(c *http.Client, method, url, host, want string) func() error {
	return func() error {
		req, err := http.NewRequestWithContext(i.Context(), method, url, strings.NewReader(map[string]string{http.MethodPost: "ok=true"}[method]))
		if err != nil {
			return err
		}
		req.Host = host
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // all of it was read
		switch said := string(text); {
		case resp.StatusCode == http.StatusOK && err != nil:
			return fmt.Errorf("%w: the answer is cut off: %w", errSaid, err)
		case err != nil:
			return err
		case resp.StatusCode == http.StatusOK && strings.Contains(said, want):
			return nil
		case resp.StatusCode >= http.StatusBadGateway && resp.StatusCode <= http.StatusGatewayTimeout && strings.Contains(said, strings.TrimSuffix(host, ".test")):
			return fmt.Errorf("%w: %s: %s", errSaid, resp.Status, said)
		}
		return fmt.Errorf("false answer: %s: %.200s", resp.Status, text)
	}
}

// call makes a gRPC call.
func (i *internet) call(conn *grpc.ClientConn) func() error {
	return func() error {
		version, err := echo(i.T, conn)
		switch {
		case err == nil && version != "v1":
			return fmt.Errorf("false answer: %q", version)
		case status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "project"):
			return fmt.Errorf("%w: %w", errSaid, err)
		}
		return err
	}
}

// lost is a project with calls and pages.
func lost(i *internet, name string) string {
	text := i.calls(name, testimage.WebV1, "one")
	for _, path := range []string{"env", "healthz"} {
		text += fmt.Sprintf("  - {name: %s, host: %s.test, path: /%[1]s, target: {service: web, port: 8080}, access: {scope: Public}, tls: {secretRef: %[2]s}}\n", path, name)
	}
	return text
}

// TestLostNode: the node that runs a project dies under the clients of another node's agent. What they get until the project runs
// elsewhere are answers of the agent that say why. Then their requests succeed again over the connections that they have.
func TestLostNode(t *testing.T) {
	port, err := testcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	i := publicNodes(t, "--ports", port, "--ports-internal", "127.0.0.1")
	w := i.testCluster
	for _, host := range w.engines {
		testdocker.Images(t, host, testimage.Echo)
	}
	shop, tcp := w.name("shop"), w.name("tcp")
	host := shop + ".test"
	i.certificate(shop, host)
	w.apply(lost(i, shop) + "  rescheduleAfter: 5s\n---\n" + echoOn(tcp, port, "one") + "  rescheduleAfter: 5s\n")
	w.running(shop, tcp)
	w.succeeds("uncordon", "n1")

	var whole, ended atomic.Bool
	h1, h2, inside := i.client(false), i.client(true), &http.Client{Transport: &http.Transport{}}
	h1.Transport.(*http.Transport).DisableKeepAlives = false
	t.Cleanup(inside.CloseIdleConnections)
	secured := credentials.NewTLS(&tls.Config{RootCAs: i.roots, ServerName: host})
	clients := []*lostClient{
		{name: "HTTP", do: i.page(inside, http.MethodGet, "http://"+w.ingress["n1"]+"/env", host, "GREETING=one")},
		{name: "HTTPS", do: i.page(h1, http.MethodGet, "https://"+host+"/env", host, "GREETING=one")},
		{name: "HTTPS with a body", do: i.page(h1, http.MethodPost, "https://"+host+"/healthz", host, "")},
		{name: "HTTP/2", do: i.page(h2, http.MethodGet, "https://"+host+"/env", host, "GREETING=one")},
		{name: "gRPC", do: i.call(i.dialGRPC(host, i.https, secured))},
		{name: "gRPC inside", do: i.call(i.dialGRPC(host, w.ingress["n1"], insecure.NewCredentials()))},
		{name: "TCP", do: func() error {
			if err := bounce("127.0.0.1:"+port, []byte("hello")); err != nil {
				return fmt.Errorf("%w: %w", errSaid, err) // an answer that is wrong has no other error than one that is cut off
			}
			return nil
		}},
	}
	var all errgroup.Group
	defer ended.Store(true)
	for _, c := range clients {
		c.whole = &whole
		all.Go(func() error { return c.run(&ended) })
	}
	goOn := func(when string) {
		t.Helper()
		before := make([]int64, len(clients))
		for n, c := range clients {
			before[n] = c.made.Load()
		}
		ctx, cancel := w.patience()
		defer cancel()
		w.must(testcluster.WaitFor(ctx, "each client goes on "+when, func(context.Context) error {
			for n, c := range clients {
				if c.made.Load() < before[n]+3 && !ended.Load() {
					return fmt.Errorf("%s has made %d requests, and the agent has answered %d", c.name, c.made.Load(), c.said.Load())
				}
			}
			return nil
		}))
		if ended.Load() {
			w.must(all.Wait())
		}
	}
	goOn("at first")
	open, err := dialLocal("127.0.0.1:" + port)
	w.must(err)
	defer open.Close()
	hello := []byte("hello")
	_, err = open.Write(hello)
	w.must(err)
	_, err = io.ReadFull(open, hello)
	w.must(err)

	heal := w.silence(i.second)
	for _, name := range []string{shop, tcp} {
		w.until(name, "runs on n1", func(p *carav1.Project) bool { return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == "n1" })
	}
	goOn("at the new node")
	if _, err := io.ReadFull(open, hello); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the connection to the service of the lost node ends with %v, as if its data were complete", err)
	}
	whole.Store(true)
	goOn("for good")

	heal()
	w.ready("n2")
	ctx, cancel := w.patience()
	defer cancel()
	for _, name := range []string{shop, tcp} {
		w.must(w.AwaitNothing(ctx, i.second.Host, name))
	}
	goOn("when the node is back")
	ended.Store(true)
	w.must(all.Wait())
	for _, c := range clients {
		t.Logf("%s: %d requests, %d times the agent said why there is no answer", c.name, c.made.Load(), c.said.Load())
	}
	if n := w.project(shop); n.GetStatus().GetNodeRef() != "n1" || n.GetStatus().GetPhase() != api.PhaseRunning {
		t.Errorf("at the end, the project is %v", n.GetStatus())
	}
}
