package ingress

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func siteOf(paths ...string) site {
	var routes []*carav1.Route
	for _, p := range paths {
		routes = append(routes, &carav1.Route{Host: "a.b", Path: p})
	}
	return newSite(routes)
}

func TestSiteRoute(t *testing.T) {
	const none, ambiguous = "no route", "ambiguous"
	whole, parts, only := siteOf(""), siteOf("/api", "", "/api/v2", "/@scope"), siteOf("/api")
	for _, tt := range []struct {
		site site
		path string // as in a request
		want string // the route's path
	}{
		{whole, "/", ""},
		{whole, "/x/../..//%2F;a\\", ""}, // one route: the service reads the path as it likes
		{parts, "/", ""},
		{parts, "/index.html", ""},
		{parts, "/api", "/api"},
		{parts, "/api/", "/api"},
		{parts, "/api/x", "/api"},
		{parts, "/apix", ""},
		{parts, "/API", ""},
		{parts, "/api/v2", "/api/v2"},
		{parts, "/api/v2/x", "/api/v2"},
		{parts, "/api/v20", "/api"},
		{parts, "/%61pi/x", "/api"},
		{parts, "/%40scope/x", "/@scope"},
		{parts, "/.well-known/x", ""},
		{parts, "/api/./x", "/api"},
		{parts, "/api/a%2Fb", "/api"},
		{parts, "/a%2Fb", ""},
		{parts, "/api/x;v=2", "/api"},
		{parts, "*", ""},
		{parts, "", ""},
		{parts, "/x/../api", ambiguous},
		{parts, "/api/../x", ambiguous},
		{parts, "/api/x/../../x", ambiguous},
		{parts, "/%2e%2e/api", ambiguous},
		{parts, "/x/..%2fapi", ambiguous},
		{parts, "/api%2Fx", ambiguous},
		{parts, "/api%2fv2", ambiguous},
		{parts, "/api/%2Fv2", ambiguous},
		{parts, "//api", ambiguous},
		{parts, "/api//v2", ambiguous},
		{parts, "/./api", ambiguous},
		{parts, `/x\..\api`, ambiguous},
		{parts, `/x%5C..%5Capi`, ambiguous},
		{parts, "/api;x=1/y", ambiguous},
		{parts, "/x;y/../api", ambiguous},
		{parts, "/api%3Bx/y", ambiguous},
		{only, "/api/x", "/api"},
		{only, "/", none},
		{only, "*", none},
		{only, "", none},
		{only, "/apix", none},
		{only, "/x/../y", none},
		{only, "/x/../api", ambiguous},
	} {
		u := &url.URL{Path: tt.path} // of OPTIONS *, and of http://a.b
		if strings.HasPrefix(tt.path, "/") {
			var err error
			if u, err = url.ParseRequestURI(tt.path); err != nil {
				t.Fatal(err)
			}
		}
		got := none
		switch r, ok := tt.site.route(u); {
		case !ok:
			got = ambiguous
		case r != nil:
			got = r.Path
		}
		if got != tt.want {
			t.Errorf("%d routes, path %q: got %q, want %q", len(tt.site), tt.path, got, tt.want)
		}
	}
}

func TestLocation(t *testing.T) {
	for _, tt := range []struct{ to, query, want string }{
		{"https://www.example.com/new", "", "https://www.example.com/new"},
		{"https://www.example.com/new", "a=b&c=%20", "https://www.example.com/new?a=b&c=%20"},
		{"https://www.example.com", "a", "https://www.example.com?a"},
		{"https://www.example.com/new#part", "a", "https://www.example.com/new?a#part"},
		{"https://www.example.com/new?own", "a", "https://www.example.com/new?own"},
		{"https://www.example.com/new?", "a", "https://www.example.com/new?"},
		{"/new/%2F", "a=@evil.example//", "/new/%2F?a=@evil.example//"},
	} {
		if got := location(tt.to, tt.query); got != tt.want {
			t.Errorf("%s with %q: got %s, want %s", tt.to, tt.query, got, tt.want)
		}
	}
}

// paths is an ingress at n1 with several routes of one host.
func paths(t *testing.T) (*Ingress, string) {
	t.Helper()
	ip, port := service(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI) })
	i, addr := agent(t, "n1", up(ip))
	i.Apply(&carav1.Routes{Full: true, Hosts: []*carav1.HostRoutes{{Host: "A.b", Routes: []*carav1.Route{
		{Host: "a.b", Path: "/api", Project: "p", Service: "api", Port: port, Node: "n1"},
		{Host: "a.b", Path: "/dead", Project: "q", Service: "dead", Port: 1, Node: "n1"},
		{Host: "a.b", Path: "/old", Project: "q", Node: "n1", Redirect: &carav1.IngressRedirect{To: "/api/new"}},
		{Host: "a.b", Path: "/away", Project: "q", Node: "n1", Redirect: &carav1.IngressRedirect{To: "https://www.example.com", Code: 302}},
	}}}})
	return i, addr
}

// send sends one request with this target as it is, and returns status, body and location.
func send(t *testing.T, addr, method, target string, headers ...string) (int, string, string) {
	t.Helper()
	c := raw(t, addr, method+" "+target+" HTTP/1.1\r\nHost: a.b\r\nContent-Length: 0\r\nConnection: close\r\n"+strings.Join(append(headers, "\r\n"), "\r\n"))
	if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil { // only ends a test that hangs
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header.Get("Location")
}

func TestPaths(t *testing.T) {
	_, addr := paths(t)
	for name, tt := range map[string]struct {
		method, target string
		status         int
		body, location string
	}{
		"the path is unchanged":   {"GET", "/api/./a%2Fb?x=%20", 200, "/api/./a%2Fb?x=%20", ""},
		"another project":         {"GET", "/dead/x", 502, `Service "dead" of project "q"`, ""},
		"no route":                {"GET", "/", 404, `No project claims this path of the host "a.b".`, ""},
		"two readings":            {"GET", "/x/../api", 400, "The path can be read in several ways", ""},
		"an absolute URL":         {"GET", "http://a.b/api/x", 200, "/api/x", ""},
		"a redirect":              {"GET", "/old", 308, "The new location", "/api/new"},
		"a redirect, and a query": {"POST", "/old/x?a=//evil.example", 308, "The new location", "/api/new?a=//evil.example"},
		"a redirect with a code":  {"GET", "/away?a", 302, "The new location", "https://www.example.com?a"},
		"slashes in a redirect":   {"GET", "/old//evil.example", 308, "The new location", "/api/new"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body, location := send(t, addr, tt.method, tt.target)
			if status != tt.status || !strings.Contains(body, tt.body) || location != tt.location {
				t.Errorf("got %d %q %q, want %d %q %q", status, location, body, tt.status, tt.location, tt.body)
			}
		})
	}
}

// routesOf returns all routes of an ingress, by host.
func routesOf(i *Ingress) map[string][]*carav1.Route {
	routes := map[string][]*carav1.Route{}
	for host, s := range i.table.Load().hosts {
		for _, r := range s {
			routes[host] = append(routes[host], r.Route)
		}
	}
	return routes
}

// A message about a host replaces all its routes, in both forms.
func TestRoutesOfAHostAreReplaced(t *testing.T) {
	i := New(Config{Node: "n1", Endpoint: down, Logger: slog.New(slog.DiscardHandler)})
	whole := &carav1.Route{Host: "a.b", Project: "p", Service: "w", Port: 80, Node: "n1"}
	api := &carav1.Route{Host: "a.b", Path: "/api", Project: "p", Service: "w", Port: 80, Node: "n2", IngressAddress: "192.0.2.1:1"}
	both := &carav1.HostRoutes{Host: "a.b", Routes: []*carav1.Route{whole, api}}
	for _, step := range []struct {
		change *carav1.Routes
		want   []*carav1.Route
	}{
		{&carav1.Routes{Full: true, Upserts: []*carav1.Route{whole}}, []*carav1.Route{whole}},
		{&carav1.Routes{RemovedHosts: []string{"a.b"}, Hosts: []*carav1.HostRoutes{both}}, []*carav1.Route{api, whole}},
		{&carav1.Routes{Upserts: []*carav1.Route{whole}}, []*carav1.Route{whole}},
		{&carav1.Routes{Hosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{api}}}}, []*carav1.Route{api}},
		{&carav1.Routes{Hosts: []*carav1.HostRoutes{{Host: "c.d"}}}, []*carav1.Route{api}},
		{&carav1.Routes{RemovedHosts: []string{"a.b"}}, nil},
		{&carav1.Routes{Full: true, RemovedHosts: []string{"a.b"}, Hosts: []*carav1.HostRoutes{both}}, []*carav1.Route{api, whole}},
	} {
		i.Apply(step.change)
		if diff := cmp.Diff(step.want, routesOf(i)["a.b"], protocmp.Transform()); diff != "" {
			t.Errorf("after %v (-want +got): %s", step.change, diff)
		}
	}
	if got := i.table.Load().agents["n2"]; got != "192.0.2.1:1" {
		t.Errorf("the address of n2 is %q", got)
	}
}

// A stored table keeps every kind of route, and an agent of an older version reads only those that it can serve.
func TestSavedPaths(t *testing.T) {
	file := t.TempDir() + "/routes.json"
	i := New(Config{Node: "n1", Endpoint: down, File: file, Logger: slog.New(slog.DiscardHandler)})
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "plain.test", Project: "p"}}, Hosts: []*carav1.HostRoutes{
		{Host: "paths.test", Routes: []*carav1.Route{{Host: "paths.test", Path: "/api", Project: "p"}}},
		{Host: "limited.test", Routes: []*carav1.Route{{Host: "limited.test", Project: "p", Allow: []string{"10.0.0.0/8"}}}},
		{Host: "moved.test", Routes: []*carav1.Route{{Host: "moved.test", Redirect: &carav1.IngressRedirect{To: "/x"}}}},
	}})
	storeRoutes(t, i)
	kept := &carav1.Routes{}
	if !i.routesFile.Load(kept) {
		t.Fatal("nothing was stored")
	}
	if len(kept.Upserts) != 1 || kept.Upserts[0].Host != "plain.test" {
		t.Errorf("an older agent would read %v", kept.Upserts)
	}
	again := New(Config{Node: "n1", Endpoint: down, File: file, Logger: slog.New(slog.DiscardHandler)})
	again.restore()
	if diff := cmp.Diff(routesOf(i), routesOf(again), protocmp.Transform()); diff != "" {
		t.Errorf("stored and read again: %s", diff)
	}
}
