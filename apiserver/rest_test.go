package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/apiserver/rest"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (h *house) do(t testing.TB, token, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{code: resp.StatusCode, header: resp.Header, body: string(out)}
}

func manifest(name, image string) string {
	return `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"` + name +
		`"},"spec":{"services":[{"name":"web","image":"` + image + `"}]}}`
}

func TestRESTAnswers(t *testing.T) {
	h := newHouse(t, nil)
	addNode(t, h, "n1")
	tests := []struct {
		name, token, method, path, body string
		header                          []string
		code                            int
		title                           string // of the problem, for errors
		contains                        string
	}{
		{"health needs nobody", "", "GET", "/healthz", "", nil, 200, "", "ok"},
		{"ready", "", "GET", "/readyz", "", nil, 200, "", "ok"},
		{"metrics need a reader", "", "GET", "/metrics", "", nil, 401, "Unauthenticated", ""},
		{"metrics", "viewer", "GET", "/metrics", "", nil, 200, "", "cara_watchers"},
		{"a node reads no metrics", "n1", "GET", "/metrics", "", nil, 403, "Forbidden", ""},
		{"openapi", "", "GET", "/openapi.json", "", nil, 200, "", "/api/v1/projects"},
		{"schema", "", "GET", "/schemas/project.schema.json", "", nil, 200, "", "services"},
		{"schema by its short name", "", "GET", "/schemas/project.json", "", nil, 200, "", "services"},
		{"schema of all kinds", "", "GET", "/schemas/manifest.json", "", nil, 200, "", "ProjectSpec"},
		{"a schema that is known already", "", "GET", "/schemas/node.json", "", []string{"If-None-Match", "*"}, 304, "", ""},
		{"no schema", "", "GET", "/schemas/nothing.json", "", nil, 404, "NotFound", ""},
		{"no way out of the schemas", "", "GET", "/schemas/..%2f..%2fgo.mod", "", nil, 404, "NotFound", ""},
		{"nobody lists nothing", "", "GET", "/api/v1/projects", "", nil, 401, "Unauthenticated", "Bearer TOKEN"},
		{"a wrong token", "x", "GET", "/api/v1/projects", "", nil, 401, "Unauthenticated", ""},
		{"no loop from outside", "impostor", "GET", "/api/v1/projects", "", nil, 401, "Unauthenticated", ""},
		{"an empty list", "viewer", "GET", "/api/v1/projects", "", nil, 200, "", `{"apiVersion":"caravanserai/v1","kind":"ProjectList","items":[]`},
		{"a list has its kind", "viewer", "GET", "/api/v1/nodes", "", nil, 200, "", `"kind":"NodeList"`},
		{"times that only the server sets", "admin", "PUT", "/api/v1/projects/aged", `{"apiVersion":"caravanserai/v1","kind":"Project","createdAt":"x","metadata":{"name":"aged","createdAt":"2020-01-01T00:00:00Z","updatedAt":null},"spec":{"services":[{"name":"a","image":"a:1"}]},"updatedAt":1}`, nil, 201, "", `"name":"aged"`},
		{"and within an apply", "admin", "POST", "/api/v1/apply", `{"objects":[{"project":{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"aged","updatedAt":"2020-01-01T00:00:00Z"},"spec":{"services":[{"name":"a","image":"a:1"}]}}}]}`, nil, 200, "", `"action":"unchanged"`},
		{"remove what was aged", "admin", "DELETE", "/api/v1/projects/aged", "", nil, 204, "", ""},
		{"createdAt elsewhere is unknown", "admin", "POST", "/api/v1/projects", `{"spec":{"createdAt":1}}`, nil, 400, "Invalid", `"field":"createdAt"`},
		{"a node's host name", "admin", "PUT", "/api/v1/nodes/n1", `{"apiVersion":"caravanserai/v1","kind":"Node","metadata":{"name":"n1"},"spec":{"hostname":"n1.example.com"}}`, nil, 200, "", `"hostname":"n1.example.com"`},
		{"a port of the host", "admin", "POST", "/api/v1/projects", `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"a"},"spec":{"services":[{"name":"a","image":"a:1","ports":["80:80"]}]}}`, nil, 400, "Invalid", `refused by policy \"host-ports\"`},
		{"create", "admin", "POST", "/api/v1/projects", manifest("shop", "nginx:1"), nil, 201, "", `"phase":"Pending"`},
		{"create again", "admin", "POST", "/api/v1/projects", manifest("shop", "nginx:1"), nil, 409, "AlreadyExists", `\"shop\"`},
		{"a viewer creates nothing", "viewer", "POST", "/api/v1/projects", manifest("blog", "nginx:1"), nil, 403, "Forbidden", ""},
		{"a prefix bounds", "ci", "POST", "/api/v1/projects", manifest("blog", "nginx:1"), nil, 403, "Forbidden", "pr-"},
		{"a prefix lets in", "ci", "POST", "/api/v1/projects", manifest("pr-1", "nginx:1"), nil, 201, "", ""},
		{"a prefix bounds deletion", "ci", "DELETE", "/api/v1/projects/shop", "", nil, 403, "Forbidden", "pr-"},
		{"unchanged put", "admin", "PUT", "/api/v1/projects/shop", manifest("shop", "nginx:1"), nil, 200, "", `"generation":1`},
		{"put changes", "admin", "PUT", "/api/v1/projects/shop", manifest("shop", "nginx:2"), nil, 200, "", `"generation":2`},
		{"put creates", "admin", "PUT", "/api/v1/projects/blog", manifest("blog", "nginx:1"), nil, 201, "", ""},
		{"put under another name", "admin", "PUT", "/api/v1/projects/shop", manifest("blog", "nginx:1"), nil, 400, "Invalid", "metadata.name"},
		{"stale if-match", "admin", "PUT", "/api/v1/projects/shop", manifest("shop", "nginx:3"), []string{"If-Match", `"1"`}, 409, "Conflict", "resourceVersion"},
		{"if-match on nothing", "admin", "PUT", "/api/v1/projects/none", manifest("none", "nginx:3"), []string{"If-Match", `"1"`}, 409, "Conflict", ""},
		{"get", "viewer", "GET", "/api/v1/projects/shop", "", nil, 200, "", `"name":"shop"`},
		{"get nothing", "viewer", "GET", "/api/v1/projects/none", "", nil, 404, "NotFound", `project \"none\" not found`},
		{"filter", "viewer", "GET", "/api/v1/projects?phase=Running&phase=Failed", "", nil, 200, "", `"items":[]`},
		{"unknown phase", "viewer", "GET", "/api/v1/projects?phase=Runing", "", nil, 400, "Invalid", "phase[0]"},
		{"bad selector", "viewer", "GET", "/api/v1/projects?labelSelector=a%20b", "", nil, 400, "Invalid", "labelSelector"},
		{"bad limit", "viewer", "GET", "/api/v1/projects?limit=10001", "", nil, 400, "Invalid", "limit"},
		{"limit is no number", "viewer", "GET", "/api/v1/projects?limit=x", "", nil, 400, "Invalid", "limit"},
		{"unknown field", "admin", "POST", "/api/v1/projects", `{"speck":{}}`, nil, 400, "Invalid", `"field":"speck"`},
		{"no JSON", "admin", "POST", "/api/v1/projects", `{`, nil, 400, "Invalid", ""},
		{"two documents", "admin", "POST", "/api/v1/projects", manifest("a", "b") + manifest("c", "d"), nil, 400, "Invalid", ""},
		{"no body", "admin", "POST", "/api/v1/projects", "", nil, 400, "Invalid", ""},
		{"field path", "admin", "POST", "/api/v1/projects", `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"a"},"spec":{"services":[{"image":"x"}]}}`, nil, 400, "Invalid", `"field":"spec.services[0].name"`},
		{"wrong method", "admin", "PATCH", "/api/v1/projects/shop", "{}", nil, 405, "MethodNotAllowed", "DELETE, GET, PUT"},
		{"wrong method on a page", "admin", "POST", "/healthz", "{}", nil, 405, "MethodNotAllowed", ""},
		{"no such route", "admin", "GET", "/api/v1/pods", "", nil, 404, "NotFound", "/openapi.json"},
		{"no such page", "admin", "GET", "/", "", nil, 404, "NotFound", ""},
		{"no such verb", "admin", "POST", "/api/v1/projects/shop:explode", "{}", nil, 405, "MethodNotAllowed", ""},
		{"retry of what did not fail", "admin", "POST", "/api/v1/projects/shop:retry", "{}", nil, 409, "Conflict", "Pending"},
		{"extend what has no end", "admin", "POST", "/api/v1/projects/shop:extend", `{"by":"3600s"}`, nil, 400, "Invalid", "until"},
		{"extend", "admin", "POST", "/api/v1/projects/shop:extend", `{"until":"2999-01-01T00:00:00Z"}`, nil, 200, "", "2999-01-01"},
		{"override what is nobody's", "admin", "POST", "/api/v1/projects/shop:override", `{"terms":{"reason":"x"}}`, nil, 409, "Conflict", ""},
		{"apply", "admin", "POST", "/api/v1/apply", `{"objects":[{"project":` + manifest("new", "nginx:1") + `}]}`, nil, 200, "", `"action":"created"`},
		{"only the reconciler speaks for sources", "admin", "POST", "/api/v1/apply", `{"source":"x"}`, nil, 403, "Forbidden", ""},
		{"a person reports nothing", "admin", "PATCH", "/api/v1/projects/shop/status", `{}`, nil, 403, "Forbidden", ""},
		{"another node reports nothing", "n2", "PATCH", "/api/v1/projects/shop/status", `{}`, nil, 409, "", ""},
		{"delete without a node", "admin", "DELETE", "/api/v1/projects/blog", "", nil, 204, "", ""},
		{"delete nothing", "admin", "DELETE", "/api/v1/projects/blog", "", nil, 404, "NotFound", ""},
		{"tombstones", "viewer", "GET", "/api/v1/tombstones", "", nil, 200, "", `"name":"blog"`},
		{"events", "viewer", "GET", "/api/v1/events?kind=Project&name=blog", "", nil, 200, "", `"reason":"Removed"`},
		{"head", "viewer", "HEAD", "/api/v1/projects/shop", "", nil, 200, "", ""},
		{"gone", "viewer", "GET", "/api/v1/projects/watch?resourceVersion=999999", "", nil, 410, "Gone", ""},
		{"gone, all kinds", "viewer", "GET", "/api/v1/watch?kinds=Project&resourceVersion=999999", "", nil, 410, "Gone", ""},
		{"watch of an unknown kind", "viewer", "GET", "/api/v1/watch?kinds=Secret", "", nil, 400, "Invalid", "kinds[0]"},
		{"a source", "admin", "POST", "/api/v1/sources", sourceManifest("platform"), nil, 201, "", ""},
		{"confirm without a snapshot", "admin", "POST", "/api/v1/sources/platform:confirm", `{"revision":"1234567"}`, nil, 409, "Conflict", ""},
		{"suspend", "admin", "POST", "/api/v1/sources/platform:suspend", `{}`, nil, 200, "", `"suspend":true`},
		{"reconcile what is suspended", "admin", "POST", "/api/v1/sources/platform:reconcile", `{}`, nil, 409, "Conflict", "resume"},
		{"resume", "admin", "POST", "/api/v1/sources/platform:resume", `{}`, nil, 200, "", ""},
		{"reconcile", "admin", "POST", "/api/v1/sources/platform:reconcile", `{}`, nil, 200, "", `"token"`},
		{"claims", "viewer", "GET", "/api/v1/sources/platform/claims", "", nil, 200, "", `"metadata"`},
		{"delete a source", "admin", "DELETE", "/api/v1/sources/platform", "", nil, 204, "", ""},
		{"info", "viewer", "GET", "/api/v1/info", "", nil, 200, "", `"actor":"user/viewer"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := h.do(t, tt.token, tt.method, tt.path, tt.body, tt.header...)
			if got.code != tt.code {
				t.Fatalf("%s %s: got %d %s, want %d", tt.method, tt.path, got.code, got.body, tt.code)
			}
			if !strings.Contains(got.body, tt.contains) {
				t.Errorf("body is %s, want %q in it", got.body, tt.contains)
			}
			if tt.code < 400 {
				return
			}
			var p struct {
				Title, Detail string
				Status        int
			}
			if err := json.Unmarshal([]byte(got.body), &p); err != nil {
				t.Fatalf("error is no JSON: %v: %s", err, got.body)
			}
			if ct := got.header.Get("Content-Type"); ct != rest.ContentProblem || p.Status != tt.code || p.Detail == "" {
				t.Errorf("got %s %+v, want a whole problem", ct, p)
			}
			if tt.title != "" && p.Title != tt.title {
				t.Errorf("title is %q (%s), want %q", p.Title, p.Detail, tt.title)
			}
			if tt.code == 405 && got.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
}

func sourceManifest(name string) string {
	return `{"apiVersion":"caravanserai/v1","kind":"Source","metadata":{"name":"` + name + `"},"spec":{"dir":{"path":"/srv/manifests"}}}`
}

func TestRESTCompareAndSwap(t *testing.T) {
	h := newHouse(t, nil)
	first := h.do(t, "admin", "POST", "/api/v1/projects", manifest("shop", "nginx:1"))
	etag := first.header.Get("ETag")
	if got := h.do(t, "viewer", "GET", "/api/v1/projects/shop", ""); etag == "" || got.header.Get("ETag") != etag {
		t.Fatalf("ETags %q and %q", etag, got.header.Get("ETag"))
	}
	if got := h.do(t, "admin", "PUT", "/api/v1/projects/shop", manifest("shop", "nginx:2"), "If-Match", etag); got.code != 200 {
		t.Fatalf("got %d %s", got.code, got.body)
	}
	if got := h.do(t, "admin", "PUT", "/api/v1/projects/shop", manifest("shop", "nginx:3"), "If-Match", etag); got.code != 409 {
		t.Fatalf("got %d %s", got.code, got.body)
	}
}

func TestRESTBodyIsBounded(t *testing.T) {
	h := newHouse(t, nil)
	big := bytes.Repeat([]byte("x"), 60<<20)
	for name, body := range map[string]io.Reader{
		"with a length":    bytes.NewReader(big),
		"without a length": struct{ io.Reader }{bytes.NewReader(big)},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+h.addr+"/api/v1/apply", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer admin")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return // the server closed the connection while the body was sent, which is also fine
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("got %d", resp.StatusCode)
			}
		})
	}
}

func TestRESTWatchStreamsLines(t *testing.T) {
	h := newHouse(t, nil)
	h.do(t, "admin", "POST", "/api/v1/projects", manifest("shop", "nginx:1"))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+h.addr+"/api/v1/projects/watch?phase=Pending", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer viewer")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (e struct {
		Type            string
		ResourceVersion string
		Object          struct{ Metadata struct{ Name string } }
	},
	) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("stream ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, lines.Bytes())
		}
		return e
	}
	var got []string
	for range 2 {
		e := next()
		got = append(got, e.Type+" "+e.Object.Metadata.Name)
	}
	h.do(t, "admin", "POST", "/api/v1/projects", manifest("blog", "nginx:1"))
	e := next()
	got = append(got, e.Type+" "+e.Object.Metadata.Name)
	h.do(t, "admin", "DELETE", "/api/v1/projects/shop", "")
	e = next()
	got = append(got, e.Type+" "+e.Object.Metadata.Name)
	if diff := cmp.Diff([]string{"Added shop", "Bookmark ", "Added blog", "Deleted shop"}, got); diff != "" {
		t.Error(diff)
	}
}

// addNode puts a node into the store as its join would.
func addNode(t testing.TB, h *house, name string) {
	t.Helper()
	err := h.db.Transact(t.Context(), func(t *state.Tx) error {
		t.Put(&carav1.Node{Metadata: &carav1.ObjectMeta{Name: name, Uid: state.NewUID()}, Status: &carav1.NodeStatus{State: "Ready"}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
