package ingress

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// loopback says that the test is a load balancer, and elsewhere that another machine is.
var loopback, elsewhere = proxyheader.Senders{netip.MustParsePrefix("127.0.0.0/8")}, proxyheader.Senders{netip.MustParsePrefix("192.0.2.0/24")}

func v1(client string) string { return "PROXY TCP4 " + client + " 10.0.0.1 12345 80\r\n" }

// from is a header of version 2.
func from(client string) string {
	return "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + string(net.ParseIP(client).To4()) + "\x0a\x00\x00\x01\x30\x39\x00\x50"
}

// said sends bytes on a new connection and returns all that is answered.
func said(t *testing.T, addr, bytes string) string {
	t.Helper()
	answer, _ := io.ReadAll(raw(t, addr, bytes)) // an error is a connection that was reset
	return string(answer)
}

const lastRequest = "GET / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n"

// TestWhoseHeaderIsBelieved: at the internal listener and that for public HTTP.
func TestWhoseHeaderIsBelieved(t *testing.T) {
	ip, port := service(t, echo("web"))
	start := func(senders proxyheader.Senders) *front {
		f := publicFront(t, Config{Node: "n1", Endpoint: up(ip), ProxyProtocolFrom: senders, Peers: cluster(t)("n1")})
		route := publicRoute("a.b", "", port)
		route.Tls.Mode = api.TLSOff
		f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{route}})
		return f
	}
	trusting, strict := start(loopback), start(elsewhere)
	for name, tt := range map[string]struct {
		f          *front
		sent, want string // "": the connection is closed
	}{
		"version 1":            {trusting, v1("192.0.2.1") + lastRequest, "for=192.0.2.1"},
		"version 2":            {trusting, from("192.0.2.1") + lastRequest, "for=192.0.2.1"},
		"IPv6":                 {trusting, "PROXY TCP6 2001:db8::1 ::1 12345 80\r\n" + lastRequest, "for=2001:db8::1"},
		"LOCAL":                {trusting, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" + lastRequest, "for=127.0.0.1"},
		"UNKNOWN":              {trusting, "PROXY UNKNOWN\r\n" + lastRequest, "for=127.0.0.1"},
		"no header":            {trusting, lastRequest, ""},
		"a broken header":      {trusting, "PROXY TCP4 nobody 10.0.0.1 1 2\r\n" + lastRequest, ""},
		"two headers":          {trusting, v1("192.0.2.1") + v1("192.0.2.2") + lastRequest, "400 Bad Request"},
		"others, no header":    {strict, lastRequest, "for=127.0.0.1"},
		"others, version 1":    {strict, v1("192.0.2.1") + lastRequest, "400 Bad Request"},
		"others, version 2":    {strict, from("192.0.2.1") + lastRequest, "400 Bad Request"},
		"a header that begins": {strict, "PROXY / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n", "for=127.0.0.1"},
	} {
		for at, addr := range map[string]string{"internal": tt.f.internal, "public": tt.f.http} {
			got := said(t, addr, tt.sent)
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%s, %s: %q, want %q", name, at, got, tt.want)
			}
		}
	}
}

// TestAHeaderBeforeTLS: the header stands before the handshake, and counts for each request of the connection.
func TestAHeaderBeforeTLS(t *testing.T) {
	ip, port := service(t, seen)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip), ProxyProtocolFrom: loopback, Peers: cluster(t)("n1")})
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{publicRoute("a.b", "", port)}})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.b")}})
	secured := tls.Client(raw(t, f.https, from("192.0.2.1")), &tls.Config{ServerName: "a.b", RootCAs: f.ca.Pool()})
	answers := bufio.NewReader(secured)
	for range 2 {
		if _, err := io.WriteString(secured, plainRequest); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "proto=https for=192.0.2.1") {
			t.Errorf("got %q", body)
		}
	}
	without := tls.Client(raw(t, f.https, ""), &tls.Config{ServerName: "a.b", RootCAs: f.ca.Pool()})
	if err := without.Handshake(); err == nil {
		t.Error("a handshake without a header succeeds")
	}
	if got := said(t, f.https, v1("192.0.2.1")+lastRequest); got != "" {
		t.Errorf("HTTP at the listener of HTTPS: %q", got)
	}
}

// TestAgentsSendNoHeader: agents connect to each other as always, also if they have the addresses of load balancers. What a load
// balancer passes on is never another agent.
func TestAgentsSendNoHeader(t *testing.T) {
	ip, port := service(t, echo("web"))
	nodes := cluster(t)
	second, addr2 := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2"), ProxyProtocolFrom: loopback})
	first, addr1 := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1"), ProxyProtocolFrom: loopback})
	route := &carav1.Route{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: addr2, Allow: []string{"192.0.2.1/32"}}
	first.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{route}})
	second.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{route}})
	if got := said(t, addr1, v1("192.0.2.1")+lastRequest); !strings.Contains(got, "web host=a.b for=192.0.2.1") {
		t.Errorf("across two agents: %q", got)
	}
	if got := said(t, addr1, v1("192.0.2.2")+lastRequest); !strings.Contains(got, "403") {
		t.Errorf("a client that is not allowed: %q", got)
	}
	agent := tls.Client(raw(t, addr2, from("192.0.2.1")), nodes("n1").Dial("n2"))
	if err := agent.Handshake(); err == nil {
		t.Error("an agent behind a load balancer is accepted")
	}
}

// TestTheClientOfTheHeaderCounts: for passwords and in the access log.
func TestTheClientOfTheHeaderCounts(t *testing.T) {
	var lines logWriter
	i, addr := one(t, Config{ProxyProtocolFrom: loopback, AccessLog: &lines}, echo("web"))
	locked := &carav1.Route{
		Host: "a.b", Project: "p", Service: "w", Port: 1, Node: "n1", PasswordList: "people", Features: []string{api.FeatureBasicAuth},
		Redirect: &carav1.IngressRedirect{To: "/inside"},
	}
	i.Apply(&carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{locked}}}})
	i.ApplyCredentials(&carav1.Credentials{Full: true, PasswordLists: people(t)})
	guess := func(client, password string) string {
		request := "GET / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+password)) + "\r\n\r\n"
		status, _, _ := strings.Cut(strings.TrimPrefix(said(t, addr, v1(client)+request), "HTTP/1.1 "), " ")
		return status
	}
	for n := range 11 { // the last one is beyond the limit
		if got, want := guess("192.0.2.1", "wrong"), map[bool]string{false: "401", true: "429"}[n == 10]; got != want {
			t.Errorf("guess %d: %s, want %s", n, got, want)
		}
	}
	if got := guess("192.0.2.2", "right"); got != "308" {
		t.Errorf("another client of the load balancer: %s", got)
	}
	all := lines.lines(t, 12)
	if first, last := all[0]["remote"], all[11]["remote"]; first != "192.0.2.1" || last != "192.0.2.2" {
		t.Errorf("the access log has %v and %v", first, last)
	}
}

// TestAClientBehindALoadBalancerHasAShare: the limit of one client applies to each client of the load balancer.
func TestAClientBehindALoadBalancerHasAShare(t *testing.T) {
	gate, begun := make(chan struct{}), make(chan struct{}, 2)
	i, addr := one(t, Config{ProxyProtocolFrom: loopback, Limits: Limits{Connections: 100, ClientConnections: 2}}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			begun <- struct{}{}
			<-gate
		}
	})
	idle := raw(t, addr, v1("192.0.2.1")+plainRequest)
	if err := statusOf(bufio.NewReader(idle)); err != nil {
		t.Fatal(err)
	}
	waits(t, i, 1)
	var held []*bufio.Reader
	for range 2 {
		held = append(held, bufio.NewReader(raw(t, addr, from("192.0.2.1")+"GET /hold HTTP/1.1\r\nHost: a.b\r\n\r\n")))
		<-begun
	}
	ends(t, "the idle one", idle)
	ends(t, "one more than the share", raw(t, addr, v1("192.0.2.1")+plainRequest))
	for _, client := range []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"} {
		if err := statusOf(bufio.NewReader(raw(t, addr, v1(client)+plainRequest))); err != nil {
			t.Errorf("another client, %s: %v", client, err)
		}
	}
	close(gate)
	for _, r := range held {
		if err := statusOf(r); err != nil {
			t.Errorf("a request in flight: %v", err)
		}
	}
	i.internal.clients.mu.Lock()
	defer i.internal.clients.mu.Unlock()
	sum := 0
	for of, c := range i.internal.clients.clients {
		if sum += c.open; c.open > 2 || of.Addr().IsLoopback() {
			t.Errorf("%s has %d connections", of, c.open)
		}
	}
	if sum != i.internal.clients.open {
		t.Errorf("%d connections are open, and the clients have %d", i.internal.clients.open, sum)
	}
}

// TestALoadBalancerThatSendsNothing: a header has as much time as a request's header, and waiting for it blocks nobody.
func TestALoadBalancerThatSendsNothing(t *testing.T) {
	_, addr := one(t, Config{ProxyProtocolFrom: loopback, Limits: Limits{Header: moving, Connections: 4}}, echo("web"))
	for _, sent := range []string{"", "PROXY TCP4 192.0.2.1", v1("192.0.2.1")} {
		ends(t, fmt.Sprintf("%q and nothing more", sent), raw(t, addr, sent))
	}
	for range 10 {
		raw(t, addr, "PROXY TCP4 192.0.2.1")
	}
	if got := said(t, addr, v1("192.0.2.1")+lastRequest); !strings.Contains(got, "for=192.0.2.1") {
		t.Errorf("got %q", got)
	}
}
