package ingress

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// figuresOf are the series whose name begins with one of names, a line each; of histograms only how many counted.
func figuresOf(t *testing.T, r *prometheus.Registry, names ...string) []string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(f.GetName(), name) }) {
			continue
		}
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetName() + "=" + l.GetValue()
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out = append(out, fmt.Sprint(line, " ", value))
		}
	}
	return out
}

// reads waits until the figures are as wanted.
func reads(t *testing.T, r *prometheus.Registry, want []string, names ...string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		diff := cmp.Diff(want, figuresOf(t, r, names...))
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("figures differ (-want +got):\n%s", diff)
		}
	}
}

// TestFigures: requests are counted by project, and the series disappear with the project's last host.
func TestFigures(t *testing.T) {
	r := prometheus.NewRegistry()
	hold, held := make(chan struct{}), make(chan struct{})
	ip, port := service(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hold":
			close(held)
			<-hold
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "12345")
	})
	i, addr := serving(t, Config{Node: "n1", Endpoint: up(ip), Metrics: r})
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{
		{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n1"},
		{Host: "c.d", Project: "quiet", Service: "w", Port: port, Node: "n1"},
	}})
	ask := func(request string) {
		t.Helper()
		if _, err := http.ReadResponse(bufio.NewReader(raw(t, addr, request)), nil); err != nil {
			t.Fatal(err)
		}
	}
	ask("GET / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n")
	ask("PUT / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
	ask("GET /bad HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n")
	ask("GET / HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n")
	slow := raw(t, addr, "GET /hold HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n")
	<-held
	const of = " from=client project=p service=w "
	reads(t, r, []string{
		"cara_ingress_received_bytes_total" + of + "3",
		"cara_ingress_request_seconds" + of + "3",
		"cara_ingress_requests_in_flight" + of + "1",
		"cara_ingress_requests_total code=1xx" + of + "0",
		"cara_ingress_requests_total code=2xx" + of + "2",
		"cara_ingress_requests_total code=3xx" + of + "0",
		"cara_ingress_requests_total code=4xx" + of + "0",
		"cara_ingress_requests_total code=5xx" + of + "1",
		"cara_ingress_sent_bytes_total" + of + "15",
		"cara_ingress_unrouted_requests_total 1",
	}, "cara_ingress_re", "cara_ingress_sent", "cara_ingress_unrouted")

	i.Apply(&carav1.Routes{RemovedHosts: []string{"a.b"}})
	close(hold) // a request that outlives its route brings nothing back
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Fatal(err)
	}
	reads(t, r, []string{
		"cara_ingress_access_log_lost_lines_total 0", "cara_ingress_connections 0", "cara_ingress_hosts 1", "cara_ingress_unrouted_requests_total 1",
	}, "")
}

// TestARequestThatLostItsRoute: if the route is removed between lookup and count, no series remains.
func TestARequestThatLostItsRoute(t *testing.T) {
	r := prometheus.NewRegistry()
	zero := func() float64 { return 0 }
	f := newMetrics(r, zero, zero, zero)
	f.route(map[string]site{"a.b": newSite([]*carav1.Route{{Project: "p", Service: "w"}})})
	f.route(nil)
	x := &exchange{route: &carav1.Route{Project: "p", Service: "w"}, status: http.StatusOK}
	x.series = f.of(x)
	x.series.begin()
	f.count(x, time.Second)
	if got := figuresOf(t, r, "cara_ingress_request"); len(got) > 0 {
		t.Errorf("there are %q, want none", got)
	}
}

// TestAcrossAgentsBothCount: each agent counts the requests that passed it, with a label for their origin, and logs the
// client.
func TestAcrossAgentsBothCount(t *testing.T) {
	ip, port := service(t, echo("web"))
	var papers [2]logWriter
	registries := [2]*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	nodes := cluster(t)
	second, addr2 := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2"), Metrics: registries[1], AccessLog: &papers[1]})
	first, addr1 := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1"), Metrics: registries[0], AccessLog: &papers[0]})
	table := &carav1.Routes{Full: true, Upserts: []*carav1.Route{
		{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: addr2},
	}}
	first.Apply(table)
	second.Apply(table)
	if status, _ := get(t, addr1, "a.b", nil); status != http.StatusOK {
		t.Fatalf("got %d, want 200", status)
	}
	for n, want := range []struct {
		node, from string
		via        any
	}{{"n1", "client", nil}, {"n2", "agent", "n1"}} {
		reads(t, registries[n], []string{"cara_ingress_request_seconds from=" + want.from + " project=p service=w 1"}, "cara_ingress_request_seconds")
		line := papers[n].lines(t, 1)[0]
		if line["node"] != want.node || line["via"] != want.via || line["remote"] != "127.0.0.1" || line["project"] != "p" {
			t.Errorf("the line of %s is %v, want via %v and the client's address", want.node, line, want.via)
		}
	}
}

// TestRequestsOfAService: requests of clients and of other agents are counted by service, also without metrics.
func TestRequestsOfAService(t *testing.T) {
	ip, port := service(t, echo("web"))
	nodes := cluster(t)
	second, addr2 := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2")})
	first, addr1 := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	table := &carav1.Routes{Full: true, Upserts: []*carav1.Route{
		{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: addr2},
	}}
	first.Apply(table)
	second.Apply(table)
	for _, addr := range []string{addr1, addr2, addr2} {
		if status, _ := get(t, addr, "a.b", nil); status != http.StatusOK {
			t.Fatalf("got %d, want 200", status)
		}
	}
	for within := time.After(time.Minute); ; { // a request is counted after its answer
		n, ok := second.Requests("p", "w")
		if n == 3 && ok {
			break
		}
		select {
		case <-within:
			t.Fatalf("%d requests, routed: %t; want 3", n, ok)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if n, ok := second.Requests("p", "other"); n != 0 || ok {
		t.Errorf("of a service without a route: %d, %t", n, ok)
	}
	second.Apply(&carav1.Routes{RemovedHosts: []string{"a.b"}})
	if n, ok := second.Requests("p", "w"); n != 0 || ok {
		t.Errorf("without a route: %d, %t", n, ok)
	}
}
