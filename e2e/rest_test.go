package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// object is any object as the REST API has it.
type object struct {
	Kind     string
	Metadata struct {
		Name, UID, ResourceVersion, Owner string
		Generation                        int
	}
	Status struct{ Phase, State, NodeRef string }
}

type list struct {
	Items    []object
	Metadata struct{ ResourceVersion, NextPageToken string }
}

func (l list) names() (names []string) {
	for _, o := range l.Items {
		names = append(names, o.Metadata.Name)
	}
	return names
}

// call wants a status and decodes the answer.
func (w *testCluster) call(method, path, body string, status int, into any, headers ...string) *http.Response {
	w.Helper()
	token, err := w.Token()
	w.must(err)
	resp, text := w.restAs(token, method, path, strings.NewReader(body), headers...)
	if resp.StatusCode != status {
		w.Fatalf("%s %s: %s, want %d\n%s", method, path, resp.Status, status, text)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			w.Fatalf("%s %s: %v\n%s", method, path, err, text)
		}
	}
	return resp
}

// no wants a problem.
func (w *testCluster) no(method, path, body string, status int, title string, headers ...string) problem {
	w.Helper()
	token, err := w.Token()
	w.must(err)
	resp, text := w.restAs(token, method, path, strings.NewReader(body), headers...)
	return w.refused(resp, text, status, title)
}

func restProject(name, image, more string) string {
	return fmt.Sprintf(`{"apiVersion": "caravanserai/v1", "kind": "Project", "metadata": {"name": %q%s},
		"spec": {"services": [{"name": "web", "image": %q}]}}`, name, more, image)
}

const api1 = "/api/v1"

// TestRESTProjects walks through the table of the API's contract without any node: what is created stays Pending.
func TestRESTProjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	var p, again object
	v1, v2 := restProject("web", testimage.WebV1, ""), restProject("web", testimage.WebV2, "")
	resp := w.call("POST", api1+"/projects", v1, 201, &p)
	if p.Status.Phase != "Pending" || p.Metadata.Generation != 1 || p.Metadata.UID == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("created %+v, %v", p, resp.Header)
	}
	w.no("POST", api1+"/projects", v1, 409, "AlreadyExists")
	w.until("web", "says that there is no node", func(p *carav1.Project) bool {
		return condition(p.GetStatus().GetConditions(), "Scheduled").GetReason() == "Unschedulable"
	})
	w.call("GET", api1+"/projects/web", "", 200, &p) // nobody writes to it from here on
	w.call("PUT", api1+"/projects/web", v1, 200, &again)
	if again != p {
		t.Errorf("an unchanged PUT made %+v of %+v", again, p)
	}
	w.call("PUT", api1+"/projects/web", v2, 200, &again, "If-Match", `"`+p.Metadata.ResourceVersion+`"`)
	if again.Metadata.Generation != 2 {
		t.Errorf("generation %d after a change, want 2", again.Metadata.Generation)
	}
	w.no("PUT", api1+"/projects/web", v1, 409, "Conflict", "If-Match", `"`+p.Metadata.ResourceVersion+`"`)
	w.no("PUT", api1+"/projects/web", restProject("web", testimage.WebV1, `, "resourceVersion": "`+p.Metadata.ResourceVersion+`"`), 409, "Conflict")
	w.no("PUT", api1+"/projects/other", v1, 400, "Invalid")
	w.call("PUT", api1+"/projects/fresh", restProject("fresh", testimage.WebV1, `, "labels": {"tier": "test"}`), 201, nil)
	w.call("GET", api1+"/projects/web", "", 200, &p)
	w.no("GET", api1+"/projects/nothing", "", 404, "NotFound")
	w.no("DELETE", api1+"/projects/nothing", "", 404, "NotFound")

	var l list
	for path, want := range map[string][]string{
		"/projects":                             {"fresh", "web"},
		"/projects?phase=Running&phase=Pending": {"fresh", "web"},
		"/projects?phase=Running":               nil,
		"/projects?labelSelector=tier%3Dtest":   {"fresh"},
		"/projects?owner=user/admin":            {"fresh", "web"},
		"/projects?nodeRef=n1":                  nil,
		"/projects?limit=1":                     {"fresh"},
	} {
		l = list{}
		w.call("GET", api1+path, "", 200, &l)
		if !slices.Equal(l.names(), want) || l.Metadata.ResourceVersion == "" {
			t.Errorf("%s: %v %v, want %v", path, l.names(), l.Metadata, want)
		}
		if path == "/projects?limit=1" {
			token := l.Metadata.NextPageToken
			l = list{}
			w.call("GET", api1+"/projects?limit=1&pageToken="+token, "", 200, &l)
			if !slices.Equal(l.names(), []string{"web"}) || l.Metadata.NextPageToken != "" {
				t.Errorf("second page: %v %v", l.names(), l.Metadata)
			}
		}
	}
	w.no("PATCH", api1+"/projects/web/status", `{"phase": "Running"}`, 403, "Forbidden")
	w.no("POST", api1+"/projects/web:retry", `{}`, 409, "Conflict")
	w.no("POST", api1+"/projects/nothing:retry", `{}`, 404, "NotFound")
	w.no("GET", api1+"/projects/web/logs", "", 409, "Conflict")
	w.call("POST", api1+"/projects/web:extend", `{"until": "2040-01-01T00:00:00Z"}`, 200, nil)
	w.call("DELETE", api1+"/projects/web", "", 204, nil)
	w.no("GET", api1+"/projects/web", "", 404, "NotFound")
	w.call("DELETE", api1+"/projects/fresh?force=true", "", 204, nil)
}

// TestRESTRefuses is what is wrong with requests as such: always a problem, and the field where there is one.
func TestRESTRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.no("GET", api1+"/nothing", "", 404, "NotFound")
	w.no("GET", "/", "", 404, "NotFound")
	w.no("PATCH", api1+"/projects", "{}", 405, "MethodNotAllowed")
	w.no("DELETE", api1+"/projects", "", 405, "MethodNotAllowed")
	w.no("POST", api1+"/projects", `{"metadata": `, 400, "Invalid")
	w.no("POST", api1+"/projects", `[]`, 400, "Invalid")
	w.no("POST", api1+"/projects", ``, 400, "Invalid")
	w.no("POST", api1+"/projects", strings.Repeat(" ", 5<<20), 413, "TooLarge")
	w.no("GET", api1+"/projects?limit=-1", "", 400, "Invalid")
	w.no("GET", api1+"/projects?labelSelector=%3D%3D", "", 400, "Invalid")
	for body, field := range map[string]string{
		`{"metadata": {"name": "x"}, "spec": {"services": [{"name": "web", "imag": "y"}]}}`: "imag",
		restProject("Upper_Case", "y", ""):                                                  "metadata.name",
		restProject("x", "BAD IMAGE??", ""):                                                 "spec.services[0].image",
		`{"apiVersion": "v1", "kind": "Project", "metadata": {"name": "x"}, "spec": {"services": [{"name": "web", "image": "y"}]}}`: "apiVersion",
		`{"apiVersion": "caravanserai/v1", "kind": "Project", "metadata": {"name": "x"}, "spec": {}}`:                               "spec.services",
	} {
		p := w.no("POST", api1+"/projects", body, 400, "Invalid")
		if len(p.Errors) == 0 || !strings.HasSuffix(p.Errors[0].Field, field) || p.Errors[0].Message == "" {
			t.Errorf("%s: errors %+v, want one of %s", body, p.Errors, field)
		}
	}
	w.want(w.ctl("", "get", "projects"), 0, "", "no projects found\n")
}

// TestRESTOtherKinds: sources, secrets, events, apply, and the pages beside the API.
func TestRESTOtherKinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	source := `{"apiVersion": "caravanserai/v1", "kind": "Source", "metadata": {"name": "s"}, "spec": {"dir": {"path": "` + w.Dir + `/empty"}}}`
	w.call("POST", api1+"/sources", source, 201, nil)
	w.no("POST", api1+"/sources", source, 409, "AlreadyExists")
	w.call("PUT", api1+"/sources/s", source, 200, nil)
	for _, verb := range []string{"reconcile", "suspend", "resume"} {
		w.call("POST", api1+"/sources/s:"+verb, `{}`, 200, nil)
	}
	w.no("POST", api1+"/sources/s:confirm", `{"revision": "x"}`, 400, "Invalid")
	w.call("GET", api1+"/sources/s/claims", "", 200, nil)
	w.call("DELETE", api1+"/sources/s", "", 204, nil)

	secret := `{"apiVersion": "caravanserai/v1", "kind": "Secret", "metadata": {"name": "k"}, "stringData": {"password": "hunter2"}}`
	w.call("POST", api1+"/secrets", secret, 201, nil)
	w.no("POST", api1+"/secrets", secret, 409, "AlreadyExists")
	if _, body := w.rest("GET", api1+"/secrets/k", nil); strings.Contains(body, "hunter2") || !strings.Contains(body, `"password"`) {
		t.Errorf("a secret shows %s", body)
	}
	w.call("DELETE", api1+"/secrets/k", "", 204, nil)
	w.no("GET", api1+"/secrets/k", "", 404, "NotFound")

	node := `{"apiVersion": "caravanserai/v1", "kind": "Node", "metadata": {"name": "later", "labels": {"disk": "ssd"}}}`
	w.call("POST", api1+"/nodes", node, 201, nil)
	w.no("POST", api1+"/nodes", node, 409, "AlreadyExists")
	w.call("PUT", api1+"/nodes/later", node, 200, nil)
	w.no("POST", api1+"/nodes/later/heartbeat", `{}`, 403, "Forbidden")
	w.call("DELETE", api1+"/nodes/later", "", 204, nil)

	var applied struct {
		Results []struct {
			Kind, Name, Action string
			Problem            problem
		}
	}
	body := `{"objects": [{"project": ` + restProject("a", "x", "") + `}, {"project": ` + restProject("B", "x", "") + `}]}`
	w.call("POST", api1+"/apply", body, 200, &applied)
	if len(applied.Results) != 2 || applied.Results[0].Action != "created" || applied.Results[1].Action != "refused" ||
		applied.Results[1].Problem.Title != "Invalid" {
		t.Errorf("apply: %+v", applied)
	}
	w.call("GET", api1+"/events", "", 200, &list{})
	w.call("GET", api1+"/info", "", 200, nil)
	var servers struct {
		Items []struct {
			Address string
			Loops   []string
		}
	}
	w.call("GET", api1+"/servers", "", 200, &servers)
	if len(servers.Items) != 1 || servers.Items[0].Address != w.Listen || len(servers.Items[0].Loops) < 4 {
		t.Errorf("servers: %+v", servers)
	}
	if r := w.ctl("", "get", "servers", "-o", "json"); r.Code != 0 || strings.Count(r.Stdout, `"address"`) != 1 || !strings.Contains(r.Stdout, w.Listen) {
		t.Errorf("get servers of a server alone: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	w.call("GET", "/openapi.json", "", 200, nil)
	if _, body := w.rest("GET", "/metrics", nil); !strings.Contains(body, "# TYPE cara_") {
		t.Errorf("/metrics has nothing of ours: %.300s", body)
	}
	w.no("GET", api1+"/projects/watch?resourceVersion=999999999", "", 410, "Gone")
	w.call("DELETE", api1+"/projects/a", "", 204, nil)
}

// TestRESTWithANode has what needs one: 202 for a deletion that takes longer, 409 for a node in use, logs, a watch.
func TestRESTWithANode(t *testing.T) {
	w := oneNode(t)
	name := w.name("stubborn")
	w.apply(project(name, `
services:
- name: web
  image: `+testimage.WebV1+`
  env: [{name: IGNORE_TERM, value: "1"}]
  stopGracePeriod: 4s`))
	w.running(name)
	var l list
	w.call("GET", api1+"/projects?nodeRef=n1&phase=Running", "", 200, &l)
	if !slices.Equal(l.names(), []string{name}) {
		t.Errorf("on n1 run %v", l.names())
	}
	var n object
	w.call("GET", api1+"/nodes/n1", "", 200, &n)
	if n.Status.State != "Ready" {
		t.Errorf("node %+v", n)
	}
	w.no("DELETE", api1+"/nodes/n1", "", 409, "Conflict")
	w.logged(name, "web", "web v1 listens on")
	if resp, body := w.rest("GET", api1+"/projects/"+name+"/logs", nil); resp.StatusCode != 200 || !strings.Contains(body, "web v1 listens on") {
		t.Errorf("logs: %s %s", resp.Status, body)
	}
	w.call("POST", api1+"/projects/"+name+":restart", `{}`, 200, nil)
	w.running(name)
	resp := w.call("DELETE", api1+"/projects/"+name, "", 202, nil)
	if resp.ContentLength == 0 {
		t.Error("202 has no body that says what happens")
	}
	w.gone(name)
	w.no("DELETE", api1+"/projects/"+name, "", 404, "NotFound")
}
