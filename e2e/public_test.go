package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// internet is a client that trusts the test's authority and reaches the public addresses of one agent.
type internet struct {
	*testCluster
	ca          *testca.Authority
	roots       *x509.CertPool // that the client trusts
	http, https string
	second      *testdocker.Second // where n2 is
}

// publicNodes is a cluster of two nodes with public addresses, and further flags of their agents. The projects run on n2, and the
// clients come to n1.
func publicNodes(t *testing.T, flags ...string) *internet {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	i := &internet{ca: ca, roots: ca.Pool()}
	for _, at := range []*string{&i.http, &i.https} {
		if *at, err = testcluster.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	w, second := twoNodesWith(t, append([]string{"--public-http", i.http, "--public-https", i.https}, flags...))
	i.testCluster, i.second = w, second
	if r := w.ctl("", "cordon", "n1"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	return i
}

// client speaks HTTP/1.1 or HTTP/2, and follows no redirects.
func (i *internet) client(h2 bool) *http.Client {
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: i.roots}, Protocols: new(http.Protocols), DisableKeepAlives: !h2,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			if strings.HasSuffix(address, ":80") {
				return new(net.Dialer).DialContext(ctx, "tcp", i.http)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", i.https)
		},
	}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	i.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// gets waits until a URL is answered with a status and words.
func (i *internet) gets(c *http.Client, url string, status int, words ...string) (resp *http.Response) {
	i.Helper()
	ctx, cancel := i.patience()
	defer cancel()
	i.must(testcluster.WaitFor(ctx, fmt.Sprintf("%s answers %d %q", url, status, words), func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err = c.Do(req); err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		for _, word := range words {
			if !strings.Contains(string(text), word) {
				return fmt.Errorf("it is %d %.200q", resp.StatusCode, text)
			}
		}
		if resp.StatusCode != status {
			return fmt.Errorf("it is %d %.200q", resp.StatusCode, text)
		}
		return nil
	}))
	return resp
}

// webSocket opens one over TLS.
func (i *internet) webSocket(host string) *stream {
	i.Helper()
	conn, err := tls.Dial("tcp", i.https, &tls.Config{ServerName: host, RootCAs: i.roots, NextProtos: []string{"http/1.1"}})
	i.must(err)
	i.Cleanup(func() { conn.Close() })
	i.must(conn.SetDeadline(time.Now().Add(5 * time.Minute)))
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
	s := &stream{conn: conn, reader: bufio.NewReader(conn)}
	resp, err := http.ReadResponse(s.reader, nil)
	i.must(err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		i.Fatalf("the WebSocket is answered with %s", resp.Status)
	}
	return s
}

// serial returns the serial number of the certificate for a host.
func (i *internet) serial(host string) (string, error) {
	conn, err := tls.Dial("tcp", i.https, &tls.Config{ServerName: host, RootCAs: i.roots})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// certificate applies a Secret of type tls with a new certificate.
func (i *internet) certificate(secret string, names ...string) {
	i.Helper()
	chain, key, err := i.ca.Site(time.Now().Add(60*24*time.Hour), names...)
	i.must(err)
	i.apply(fmt.Sprintf("apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: %s}\ntype: tls\ndata:\n  tls.crt: %s\n  tls.key: %s\n",
		secret, base64.StdEncoding.EncodeToString(chain), base64.StdEncoding.EncodeToString(key)))
}

func (i *internet) publicWeb(name, more string) string {
	return project(name, `
services:
- name: web
  image: `+testimage.WebV1+`
ingress:
- name: web
  host: `+name+`.test
  target: {service: web, port: 8080}
  access: {scope: Public}
  tls: {secretRef: `+name+`, hsts: {maxAge: 1h}}
`+more)
}

// TestPublicHosts: the internet reaches public hosts over HTTPS through an agent that does not run them, and nothing else.
func TestPublicHosts(t *testing.T) {
	i := publicNodes(t)
	w := i.testCluster
	shop, inner := w.name("shop"), w.name("inner")
	w.apply(i.publicWeb(shop, `- name: env
  host: `+shop+`.test
  path: /env
  target: {service: web, port: 8080}
  access: {scope: Public, basicAuth: {secretRef: people-`+shop+`}}
  tls: {secretRef: `+shop+`, hsts: {maxAge: 1h}}
- name: health
  host: `+shop+`.test
  path: /healthz
  target: {service: web, port: 8080}
`) + "---\n" + w.web(inner, testimage.WebV1))
	w.until(shop, "has no certificate", func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondCertificateReady)
		return c.GetStatus() == api.StatusFalse && strings.Contains(c.GetMessage(), "Secret "+shop+" does not exist")
	})
	i.certificate(shop, shop+".test")
	w.running(shop, inner)
	w.until(shop, "has a certificate", func(p *carav1.Project) bool {
		return api.IsTrue(p.GetStatus().GetConditions(), api.CondCertificateReady)
	})
	h1, h2 := i.client(false), i.client(true)
	resp := i.gets(h2, "https://"+shop+".test/", 200, "web v1")
	if resp.ProtoMajor != 2 || resp.Header.Get("Strict-Transport-Security") != "max-age=3600" {
		t.Errorf("it is %s with %v", resp.Proto, resp.Header)
	}
	i.gets(h1, "https://"+shop+".test/", 200, "web v1")
	if resp := i.gets(h1, "http://"+shop+".test/x?a=b", 308); resp.Header.Get("Location") != "https://"+shop+".test/x?a=b" {
		t.Errorf("the redirect leads to %q", resp.Header.Get("Location"))
	}
	i.gets(h1, "http://"+inner+".test/", 404, "No project claims the host")
	i.gets(h2, "https://"+shop+".test/healthz", 404, "No project claims this path")
	w.answers("n1", inner+".test", "/", 200, "web v1")
	w.answers("n1", shop+".test", "/healthz", 200)
	if _, err := i.serial(inner + ".test"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a handshake for an internal host: %v", err)
	}
	i.passwords(shop, h2)

	open := i.webSocket(shop + ".test")
	w.must(open.echoes("before"))
	before, err := i.serial(shop + ".test")
	w.must(err)
	container := w.project(shop).GetStatus().GetServices()[0].GetContainerId()
	i.certificate(shop, shop+".test", "www."+shop+".test")
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "the new certificate is used", func(context.Context) error {
		if now, err := i.serial(shop + ".test"); err != nil || now == before {
			return fmt.Errorf("the serial number is %s (%w)", now, err)
		}
		return nil
	}))
	w.must(open.echoes("after"))
	if now := w.project(shop).GetStatus(); now.GetServices()[0].GetContainerId() != container || now.GetNodeRef() != "n2" {
		t.Errorf("the container %s became %v", container, now)
	}
	routes := w.ctl("", "get", "routes", "--project", shop).Stdout
	w.says("get routes", routes, "Public", "until "+time.Now().Add(60*24*time.Hour).UTC().Format(time.DateOnly), "with a password", "Internal")
	w.says("describe", w.ctl("", "describe", "project", shop).Stdout, "https://"+shop+".test/\n", "http://"+shop+".test/healthz (internal)")

	// While the server is away, a restarted agent serves with what it has kept.
	w.stored("n1", "routes.json", shop+".test")
	w.stored("n1", "credentials.json", shop+".test")
	w.must(w.Server.Kill())
	w.must(w.Agents["n1"].Kill())
	w.must(w.RestartAgent("n1"))
	i.gets(i.client(true), "https://"+shop+".test/", 200, "web v1")
	w.must(w.StartServer(ctx))
	w.ready("n1")
	w.ready("n2")
}

// passwords tries the host's path that needs one.
func (i *internet) passwords(shop string, c *http.Client) {
	i.Helper()
	i.gets(c, "https://"+shop+".test/env", 503, "type basicAuth")
	broken := func(p *carav1.Project) bool {
		return api.FindCondition(p.GetStatus().GetConditions(), api.CondIngressReady).GetReason() == api.ReasonPasswordsUnusable
	}
	i.until(shop, "says that the Secret of its passwords is missing", broken)
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.DefaultCost)
	i.must(err)
	i.apply("apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: people-" + shop + "}\ntype: basicAuth\nstringData:\n  users: \"ann:" + string(hash) + "\"\n")
	i.gets(c, "https://ann:right@"+shop+".test/env", 200, "PATH=")
	i.until(shop, "has passwords", func(p *carav1.Project) bool { return !broken(p) })
	i.gets(c, "https://"+shop+".test/env", 401, "need a name and a password")
	i.gets(c, "https://ann:wrong@"+shop+".test/env", 401)
	i.gets(c, "https://"+shop+".test/", 200) // the other path needs none
	for n := range 9 {
		i.gets(c, fmt.Sprintf("https://ann:wrong%d@%s.test/env", n, shop), 401)
	}
	i.gets(c, "https://ann:guess@"+shop+".test/env", 429, "too many wrong passwords")
	i.gets(c, "https://ann:right@"+shop+".test/env", 200) // it is remembered
}
