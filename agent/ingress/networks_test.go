package ingress

import (
	"net/http"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestAccessList: the connection's address counts, and no header. A list applies to its own rule only.
func TestAccessList(t *testing.T) {
	reached := make(chan string, 10)
	ip, port := service(t, func(_ http.ResponseWriter, r *http.Request) { reached <- r.URL.Path })
	i, addr := agent(t, "n1", up(ip))
	elsewhere := []string{"192.0.2.0/24"}
	i.Apply(&carav1.Routes{Full: true, Hosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{
		{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n1", Allow: elsewhere},
		{Host: "a.b", Path: "/near", Project: "p", Service: "w", Port: port, Node: "n1", Allow: []string{"127.0.0.0/8"}},
		{Host: "a.b", Path: "/all", Project: "p", Service: "w", Port: port, Node: "n1"},
		{Host: "a.b", Path: "/old", Project: "p", Redirect: &carav1.IngressRedirect{To: "/secret"}, Allow: elsewhere},
	}}}})
	const refusal = `Clients with the address "127.0.0.1" cannot use this host and path.`
	for target, want := range map[string]int{"/": 403, "/x": 403, "/near": 200, "/all": 200, "/old": 403} {
		status, body, location := send(t, addr, "GET", target, "X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.1")
		if status != want || strings.Contains(body, refusal) != (want == 403) || location != "" {
			t.Errorf("%s: %d %q %q, want %d", target, status, location, body, want)
		}
	}
	close(reached)
	for path := range reached {
		if path != "/near" && path != "/all" {
			t.Errorf("the service got %s", path)
		}
	}
}

// TestAccessListAcrossAgents: both agents check the address of the client, which the first one reports to the second.
func TestAccessListAcrossAgents(t *testing.T) {
	ip, port := service(t, echo("web"))
	nodes := cluster(t)
	second, addr2 := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2")})
	first, addr1 := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	table := func(allow ...string) *carav1.Routes {
		return &carav1.Routes{Full: true, Hosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{
			{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: addr2, Allow: allow},
		}}}}
	}
	for _, tt := range []struct {
		name          string
		first, second *carav1.Routes
		want          int
	}{
		{"no list", table(), table(), 200},
		{"listed", table("127.0.0.1/32"), table("127.0.0.1/32"), 200},
		{"not listed", table("192.0.2.0/24"), table("192.0.2.0/24"), 403},
		{"not listed, which only the first agent knows", table("192.0.2.0/24"), table(), 403},
		{"not listed, which only the second agent knows", table(), table("192.0.2.0/24"), 403},
	} {
		first.Apply(tt.first)
		second.Apply(tt.second)
		if status, body := get(t, addr1, "a.b", http.Header{"X-Forwarded-For": {"192.0.2.1"}}); status != tt.want {
			t.Errorf("%s: %d %q, want %d", tt.name, status, body, tt.want)
		}
	}
}
