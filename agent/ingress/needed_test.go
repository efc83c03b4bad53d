package ingress

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/agent/ingress/ondemand"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// taken returns what the next message to the server says.
func (f *front) taken(t *testing.T) (ask, forget []string) {
	t.Helper()
	select {
	case <-f.ondemand.News():
	case <-time.After(2 * time.Minute):
		t.Fatal("the ingress asks nothing")
	}
	ask, forget = f.ondemand.Take()
	slices.Sort(forget)
	return ask, forget
}

func atNode2(host string) *carav1.Route {
	return &carav1.Route{Host: host, Project: "p", Service: "w", Port: 80, Node: "n2", IngressAddress: "192.0.2.1:8081"}
}

// TestHandshakeAsks: the handshake of a host that is not known waits for its certificate, and the request after it for nothing.
func TestHandshakeAsks(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := publicFront(t, Config{Node: "n1", OnDemand: &ondemand.Limits{}, Metrics: registry, Endpoint: func(string, string) (string, func(), bool) { return "", nil, false }})
	f.ondemand.Connected(true)
	f.Apply(&carav1.Routes{Full: true})
	status := make(chan int, 1)
	go func() {
		resp, _ := fetch(t, f.client(t, true), "https://a.test/")
		status <- resp.StatusCode
	}()
	if ask, _ := f.taken(t); !slices.Equal(ask, []string{"a.test"}) {
		t.Fatalf("the ingress asks %v", ask)
	}
	f.ApplyCredentials(&carav1.Credentials{Certificates: []*carav1.Certificate{f.certificate(t, "acme/a.test", "a.test")}})
	f.Apply(&carav1.Routes{Upserts: []*carav1.Route{{Host: "a.test", Project: "p", Service: "w", Port: 80, Node: "n1", Scope: api.ScopePublic, Tls: &carav1.IngressTLS{}}}})
	if got := <-status; got != http.StatusServiceUnavailable { // the service is not up, but the host is known
		t.Errorf("the status is %d", got)
	}
	go func() {
		_, err := tls.Dial("tcp", f.https, &tls.Config{ServerName: "gone.test", RootCAs: f.ca.Pool()})
		if err == nil {
			t.Error("a host that no project claims has a certificate")
		}
		status <- 0
	}()
	f.taken(t)
	f.Apply(&carav1.Routes{UnknownHosts: []string{"gone.test"}})
	<-status
	const figure = "cara_ingress_host_questions_total"
	if got := figuresOf(t, registry, figure); !slices.Equal(got, []string{figure + " result=Known 1", figure + " result=Unknown 1"}) {
		t.Errorf("each handshake waits once: %v", got)
	}
}

// TestForgets: hosts that are not used are forgotten, and what the server sends about them afterwards is not used. Those of the
// node's own projects stay.
func TestForgets(t *testing.T) {
	f := publicFront(t, Config{Node: "n1", OnDemand: &ondemand.Limits{Held: 10}, Endpoint: func(string, string) (string, func(), bool) { return "", nil, false }})
	f.ondemand.Connected(true)
	own := atNode2("own.test")
	own.Node = "n1"
	full := &carav1.Routes{Full: true, Upserts: []*carav1.Route{own}}
	for n := range 10 {
		full.Upserts = append(full.Upserts, atNode2(fmt.Sprintf("h%d.test", n)))
	}
	f.Apply(full)
	if n := len(f.table.Load().hosts); n != 11 || len(f.ondemand.Begin()) != 10 {
		t.Fatalf("the table has %d hosts, and the next connection begins with %d", n, len(f.ondemand.Begin()))
	}
	for host, u := range f.table.Load().used { // h0 was used longest ago, and own.test before that
		u.at.Store(time.Now().Add(-time.Minute).Unix())
		if host == "h0.test" || host == "own.test" {
			u.at.Store(1)
		}
	}
	f.Apply(&carav1.Routes{Upserts: []*carav1.Route{atNode2("late.test")}}) // nobody has asked
	if f.table.Load().hosts["late.test"] != nil {
		t.Error("a host that nobody has asked for is in the table")
	}
	f.mu.Lock()
	f.forget()
	f.mu.Unlock()
	if _, forget := f.taken(t); !slices.Equal(forget, []string{"h0.test"}) {
		t.Errorf("forgotten are %v", forget)
	}
	f.Apply(&carav1.Routes{Upserts: []*carav1.Route{atNode2("h0.test")}, UnknownHosts: []string{"h0.test", "h1.test"}}) // the server did not know yet
	hosts := f.table.Load().hosts
	if len(hosts) != 9 || hosts["own.test"] == nil || hosts["h0.test"] != nil || hosts["h1.test"] != nil {
		t.Errorf("the table has %d hosts", len(hosts))
	}
	own.Host = "moved.test"
	f.Apply(&carav1.Routes{Upserts: []*carav1.Route{own}}) // a project of this node comes without a question
	if f.table.Load().hosts["moved.test"] == nil {
		t.Error("the host of a project of this node is not in the table")
	}
}

// TestAllRoutes: a server of an older version sends the routes of all hosts. They are used without a question, and stay.
func TestAllRoutes(t *testing.T) {
	f := publicFront(t, Config{Node: "n1", OnDemand: &ondemand.Limits{Held: 1}, Endpoint: func(string, string) (string, func(), bool) { return "", nil, false }})
	f.ondemand.Connected(false)
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{atNode2("a.test"), atNode2("b.test")}})
	f.Apply(&carav1.Routes{Upserts: []*carav1.Route{atNode2("c.test")}})
	for _, u := range f.table.Load().used {
		u.at.Store(1)
	}
	f.mu.Lock()
	f.forget()
	f.mu.Unlock()
	hosts := f.table.Load().hosts
	if len(hosts) != 3 || hosts["c.test"] == nil {
		t.Errorf("the table has %d hosts, want 3 with c.test", len(hosts))
	}
}
