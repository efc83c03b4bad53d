package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// balancer is HAProxy in front of the addresses of an agent. It connects from balancerAddress, and clients come from clientAddress.
type balancer struct{ http, https, internal, port string }

const (
	balancerAddress = "127.0.0.5"
	clientAddress   = "127.0.0.1"
)

// startBalancer starts HAProxy with an option for its servers. to are the addresses of the agent.
func (w *testCluster) startBalancer(option string, to balancer) (b balancer) {
	w.Helper()
	config := "defaults\n  mode tcp\n  timeout connect 1m\n  timeout client 10m\n  timeout server 10m\n"
	for _, one := range []struct {
		name, to string
		at       *string
	}{{"http", to.http, &b.http}, {"https", to.https, &b.https}, {"internal", to.internal, &b.internal}, {"port", to.port, &b.port}} {
		var err error
		*one.at, err = testcluster.FreeAddress()
		w.must(err)
		config += fmt.Sprintf("listen %s\n  bind %s\n  source %s\n  server agent %s %s\n", one.name, *one.at, balancerAddress, one.to, option)
	}
	haproxy(w.T, config)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "haproxy listens", func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.port)
		if err != nil {
			return err
		}
		return conn.Close()
	}))
	return b
}

// TestBehindALoadBalancer: HAProxy names the clients in both versions of the PROXY protocol, in front of each listener of an agent.
// The access lists have only the client, so an answer shows that its address counts.
func TestBehindALoadBalancer(t *testing.T) {
	testneed.Program(t, "haproxy", "haproxy")
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	var agent balancer
	for _, at := range []*string{&agent.http, &agent.https, &agent.port} {
		if *at, err = testcluster.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(agent.port)
	if err != nil {
		t.Fatal(err)
	}
	lines := filepath.Join(t.TempDir(), "access.log")
	w := oneNode(t, "--public-http", agent.http, "--public-https", agent.https, "--ports", port, "--ports-internal", "127.0.0.1",
		"--proxy-protocol-from", balancerAddress+"/32", "--ingress-access-log", lines)
	agent.internal = w.ingress["n1"]
	testdocker.Images(t, w.engines[0], testimage.Echo)
	i := &internet{testCluster: w, ca: ca, roots: ca.Pool(), http: agent.http, https: agent.https}
	shop, echo := w.name("shop"), w.name("echo")
	i.certificate(shop, shop+".test")
	w.apply(strings.ReplaceAll(i.publicWeb(shop, ""), "{scope: Public}", "{scope: Public, allow: ["+clientAddress+"/32]}") +
		"---\n" + strings.Replace(echoOn(echo, port, "x"), "{name: echo, port", "{name: echo, allow: ["+clientAddress+"/32], port", 1))
	w.running(shop, echo)
	url := "https://" + shop + ".test/"
	i.gets(i.client(true), url, http.StatusOK, "web v1") // without the load balancer, and without a header

	big := make([]byte, 1<<20)
	_, _ = rand.Read(big)
	for _, option := range []string{"send-proxy", "send-proxy-v2"} {
		w.sub(option, func(w *testCluster) {
			b := w.startBalancer(option, agent)
			behind := &internet{testCluster: w, ca: ca, roots: ca.Pool(), http: b.http, https: b.https}
			behind.gets(behind.client(true), url, http.StatusOK, "web v1")
			behind.gets(behind.client(false), "http://"+shop+".test/", http.StatusPermanentRedirect)
			w.must(behind.webSocket(shop + ".test").echoes("through both"))
			w.must(w.asksAt(b.internal, shop+".test"))
			w.must(bounce(b.port, big))
		})
	}
	w.sub("without a header", func(w *testCluster) {
		b := w.startBalancer("", agent)
		if err := w.asksAt(b.internal, shop+".test"); err == nil {
			t.Error("a load balancer without a header is served")
		}
		if err := bounce(b.port, []byte("x")); err == nil {
			t.Error("a load balancer without a header reaches a port")
		}
	})
	text, err := os.ReadFile(lines)
	w.must(err)
	if !strings.Contains(string(text), `"remote":"`+clientAddress+`"`) || strings.Contains(string(text), balancerAddress) {
		t.Errorf("the access log has other clients:\n%s", text)
	}
}

// asksAt requests a host at an address, once.
func (w *testCluster) asksAt(address, host string) error {
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	req.Host, req.Close = host, true
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %d %q", host, resp.StatusCode, text)
	}
	return err
}
