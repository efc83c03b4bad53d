package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// passedTLS is a project whose service has its own certificate.
func passedTLS(name, host, image, scope, more string) string {
	return project(name, `
services:
- name: web
  image: `+image+`
  update: {order: start-first}
  env: [{name: TLS_PORT, value: "8443"}]
  healthcheck: {http: {path: /healthz, port: 8080}, interval: 200ms, timeout: 5s, retries: 5}
ingress:
- name: web
  host: `+host+`.test
  target: {service: web, port: 8443, protocol: TLS}
  access: {scope: `+scope+`}
`+more)
}

// certified returns the name in the certificate that a host shows.
func certified(address, host string) (string, error) {
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: host, InsecureSkipVerify: true}) //nolint:gosec // the name of the certificate is what the test wants
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// TestPassedTLS: TLS connections from the internet and from inside reach a service on another node unchanged, also while it is updated.
func TestPassedTLS(t *testing.T) {
	i := publicNodes(t)
	w := i.testCluster
	shop, inner, other := w.name("shop"), w.name("inner"), w.name("other")
	r := w.ctl(passedTLS(shop, shop, testimage.WebV1, "Public", "")+"---\n"+passedTLS(inner, inner, testimage.WebV1, "Internal", ""), "apply", "--wait", "-f", "-")
	w.says("apply --wait", r.Stdout, "https://"+shop+".test/\n")
	w.says("get routes", w.ctl("", "get", "routes").Stdout, "TLS passed through", "web:8443 ", shop)
	described := w.ctl("", "describe", "project", shop).Stdout
	w.says("describe project", described, "TLS passed through", "https://"+shop+".test/\n")
	if c := api.FindCondition(w.project(shop).GetStatus().GetConditions(), api.CondCertificateReady); c != nil {
		t.Errorf("there is a certificate: %v", c)
	}
	for _, address := range []string{i.https, w.ingress["n1"]} {
		if name, err := certified(address, shop+".test"); err != nil || name != "web v1" {
			t.Errorf("%s: %q, %v", address, name, err)
		}
	}
	if name, err := certified(w.ingress["n1"], inner+".test"); err != nil || name != "web v1" {
		t.Errorf("inside: %q, %v", name, err)
	}
	if _, err := certified(i.https, inner+".test"); err == nil {
		t.Error("an internal host is public")
	}
	i.gets(i.client(false), "http://"+shop+".test/", 308)

	w.sub("the host belongs to one project", func(w *testCluster) {
		r := w.ctl(project(other, `
services:
- {name: web, image: `+testimage.WebV1+`}
ingress:
- {name: web, host: `+shop+`.test, path: /other, target: {service: web, port: 8080}}`), "apply", "-f", "-")
		w.says("apply", r.Stderr, "belongs to project", shop)
	})
	w.sub("no connection fails in an update", func(w *testCluster) {
		var ended atomic.Bool
		var clients sync.WaitGroup
		var failed error
		var mu sync.Mutex
		for range 3 {
			clients.Go(func() {
				for !ended.Load() {
					if name, err := certified(i.https, shop+".test"); err != nil || name != "web v1" && name != "web v2" {
						mu.Lock()
						failed = errors.Join(failed, fmt.Errorf("%q: %w", name, err))
						mu.Unlock()
					}
				}
			})
		}
		w.apply(passedTLS(shop, shop, testimage.WebV2, "Public", ""))
		w.running(shop)
		ctx, cancel := w.patience()
		defer cancel()
		w.must(testcluster.WaitFor(ctx, "the new version has the connections", func(context.Context) error {
			if name, err := certified(i.https, shop+".test"); err != nil || name != "web v2" {
				return fmt.Errorf("it is %q (%w)", name, err)
			}
			return nil
		}))
		ended.Store(true)
		clients.Wait()
		w.must(failed)
	})
	w.sub("a restarted agent without the server", func(w *testCluster) {
		w.stored("n1", "routes.json", shop+".test")
		w.must(w.Server.Kill())
		w.must(w.Agents["n1"].Kill())
		w.must(w.RestartAgent("n1"))
		ctx, cancel := w.patience()
		defer cancel()
		w.must(testcluster.WaitFor(ctx, "the host is served", func(context.Context) error {
			_, err := certified(i.https, shop+".test")
			return err
		}))
		w.must(w.StartServer(ctx))
		w.ready("n1")
	})
}
