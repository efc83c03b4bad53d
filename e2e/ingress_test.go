package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestWhatPassesTheIngress is counted by project and logged, and the figures of a project go with it.
func TestWhatPassesTheIngress(t *testing.T) {
	metrics, err := testcluster.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "access.log")
	w := oneNode(t, "--metrics-listen", metrics, "--ingress-access-log", log)
	web := w.name("web")
	w.apply(w.web(web, testimage.WebV1))
	w.running(web)
	w.answers("n1", web+".test", "/", 200, "web v1")
	w.answers("n1", web+".test", "/nothing?token=secret", 404)
	w.answers("n1", "nobody.test", "/", 404, "No project claims the host")

	by := fmt.Sprintf(`from="client",project="%s",service="web"`, web)
	w.figures(metrics, "the ingress has counted",
		`cara_ingress_requests_total{code="4xx",`+by+"} 1", "cara_ingress_request_seconds_bucket{"+by, "cara_ingress_unrouted_requests_total 1")
	w.figures(metrics, "the agent tells of itself", "cara_agent_connected 1", "cara_agent_engine_up 1",
		`cara_agent_projects{phase="Running"} 1`, "go_goroutines ", "process_open_fds ")
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "the access log has a line of the request", func(context.Context) error { return logged(log, web) }))

	w.ctl("", "delete", "project", web)
	w.gone(web)
	w.must(testcluster.WaitFor(ctx, "the figures of a project that is gone are gone", func(ctx context.Context) error {
		if text, err := scrape(ctx, metrics); err != nil || strings.Contains(text, web) {
			return fmt.Errorf("they are still there (%w)", err)
		}
		return nil
	}))
}

// TestPathsAndRedirects: two projects share a host, a third path of it is a redirect, and a fourth is for other networks.
func TestPathsAndRedirects(t *testing.T) {
	w := oneNode(t)
	front, env := w.name("front"), w.name("env")
	host := front + ".test"
	w.apply(w.web(front, testimage.WebV1) + `  - name: old
    host: ` + host + `
    path: /old
    redirect: {to: /env, code: 307}
  - name: far
    host: ` + host + `
    path: /healthz
    target: {service: web, port: 8080}
    access: {allow: [192.0.2.0/24]}
`)
	w.apply(project(env, `
services:
- name: web
  image: `+testimage.WebV2+`
  env: [{name: MARK, value: second}]
ingress:
- name: env
  host: `+host+`
  path: /env
  target: {service: web, port: 8080}`))
	w.running(front)
	w.running(env)
	w.answers("n1", host, "/", 200, "web v1")
	w.answers("n1", host, "/env", 200, "MARK=second")
	w.answers("n1", host, "/environment", 404, "page not found") // by the service of the other project
	w.answers("n1", host, "/x/../env", 400, "The path can be read in several ways")
	w.answers("n1", host, "/old/x?a=b", 200, "MARK=second") // the client follows the redirect
	w.answers("n1", host, "/healthz", 403, `"127.0.0.1" cannot use this host and path`)
	if status, location := w.location("n1", host, "/old/x?a=b"); status != http.StatusTemporaryRedirect || location != "/env?a=b" {
		t.Errorf("the redirect is %d to %q", status, location)
	}
	w.says("describe", w.ctl("", "describe", "project", front).Stdout, "/old", "307 /env")

	w.ctl("", "delete", "project", env)
	w.gone(env)
	w.answers("n1", host, "/env", 200, "PATH=") // the host's own project has the path now
}

// location returns the answer to a request, without following it.
func (w *testCluster) location(node, host, target string) (int, string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "http://"+w.ingress[node]+target, nil)
	w.must(err)
	req.Host = host
	resp, err := http.DefaultTransport.RoundTrip(req)
	w.must(err)
	w.must(resp.Body.Close())
	return resp.StatusCode, resp.Header.Get("Location")
}

// logged looks for the line of one request.
func logged(file, project string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if bytes.Contains(text, []byte("secret")) {
		return testcluster.Fatal(errors.New("a query is in the log"))
	}
	for line := range bytes.Lines(text) {
		var r struct {
			Msg, Host, Project, Service, Node, Method, Path, Remote string
			Status, Bytes                                           int
			Duration                                                float64
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return testcluster.Fatal(fmt.Errorf("%s: %w", line, err))
		}
		if r.Path == "/nothing" && r.Status == http.StatusNotFound && r.Host == project+".test" && r.Project == project && r.Service == "web" &&
			r.Node == "n1" && r.Method == http.MethodGet && r.Remote == "127.0.0.1" && r.Bytes > 0 && r.Duration > 0 {
			return nil
		}
	}
	return fmt.Errorf("it has only:\n%s", text)
}

// figures waits until each line begins one of an agent's figures.
func (w *testCluster) figures(address, what string, lines ...string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, what, func(ctx context.Context) error {
		text, err := scrape(ctx, address)
		if err != nil {
			return err
		}
		for _, line := range lines {
			if !strings.Contains("\n"+text, "\n"+line) {
				return fmt.Errorf("no line begins with %s", line)
			}
		}
		return nil
	}))
}

func scrape(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(text), err
}
