package certs

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const day = 24 * time.Hour

func TestIssueAndRenew(t *testing.T) {
	r := newRig(t, nil)
	https := r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "127.0.0.1")
	r.claim("shop", "app.test")
	if message := r.ready("shop", api.StatusTrue, "app.test: valid until"); !strings.Contains(message, "Pebble Intermediate CA") {
		t.Errorf("the condition names no issuer: %s", message)
	}
	first := r.shows(https, "app.test")
	if got := r.events("shop"); got != api.ReasonCertificateIssued {
		t.Errorf("events %q", got)
	}
	r.pass(61*day + time.Hour)
	r.await("the certificate is renewed", func() error {
		if again := r.shows(https, "app.test"); again.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return errSame
		}
		return nil
	})
	if got := r.events("shop"); got != api.ReasonCertificateIssued+" "+api.ReasonCertificateRenewed {
		t.Errorf("events %q", got)
	}
	if !strings.Contains(r.Log(), "is a replacement of") {
		t.Error("the order does not say which certificate it replaces")
	}
}

// TestLongestHosts: a host whose name is longer than the names of objects gets a certificate, which is renewed, and forgotten after
// the host.
func TestLongestHosts(t *testing.T) {
	r := newRig(t, nil)
	https := r.agent("n1", "127.0.0.1")
	var hosts []string
	for _, size := range []int{200, 253} {
		host := strings.Repeat("a.", (size-6)/2) + strings.Repeat("b", 1+size%2) + ".test"
		if len(host) != size {
			t.Fatalf("the host has %d characters, want %d", len(host), size)
		}
		r.Lead(host, "127.0.0.1")
		hosts = append(hosts, host)
	}
	r.claim("shop", hosts...)
	r.ready("shop", api.StatusTrue, hosts[0]+": valid until")
	r.ready("shop", api.StatusTrue, hosts[1]+": valid until")
	first := []*x509.Certificate{r.shows(https, hosts[0]), r.shows(https, hosts[1])}
	r.pass(61*day + time.Hour)
	r.await("the certificates are renewed", func() error {
		for i, host := range hosts {
			if r.shows(https, host).SerialNumber.Cmp(first[i].SerialNumber) == 0 {
				return errSame
			}
		}
		return nil
	})
	_, err := carav1.NewProjectServiceClient(r.conn).DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop"})
	r.must(err)
	r.pass(61*day + time.Hour)
	r.await("the certificates are forgotten", func() error {
		conn, err := r.server.Client(api.RoleCerts)
		r.must(err)
		left, err := carav1.NewCertificateServiceClient(conn).ListCertificateOrders(t.Context(), &carav1.ListRequest{})
		if err == nil && len(left.GetItems()) > 0 {
			err = fmt.Errorf("%d orders are left", len(left.GetItems()))
		}
		return err
	})
}

// TestWrongDNS: a host that leads elsewhere gets no order until its records are right.
func TestWrongDNS(t *testing.T) {
	r := newRig(t, nil)
	r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "198.51.100.7")
	r.claim("shop", "app.test")
	r.ready("shop", api.StatusFalse, "app.test leads to 198.51.100.7, which no agent has told as its public address: let its DNS records lead to 127.0.0.1")
	if n := r.orders(); n != 0 {
		t.Errorf("%d orders for a host that leads elsewhere", n)
	}
	r.Lead("app.test", "127.0.0.1")
	r.pass(time.Minute)
	r.ready("shop", api.StatusTrue, "app.test: valid until")
}

// TestAuthorityDown: the cluster waits for the authority, and a certificate that it has stays in use.
func TestAuthorityDown(t *testing.T) {
	r := newRig(t, nil)
	https := r.agent("n1", "127.0.0.1")
	for _, host := range []string{"old.test", "new.test"} {
		r.Lead(host, "127.0.0.1")
	}
	r.claim("old", "old.test")
	r.ready("old", api.StatusTrue, "old.test")
	serial, roots := r.shows(https, "old.test").SerialNumber, r.Roots()
	r.Down()
	r.claim("new", "new.test")
	r.ready("new", api.StatusFalse, "connection refused; next try at")
	r.pass(61*day + time.Hour)
	r.ready("old", api.StatusTrue, "it could not be renewed")
	if leaf, err := r.peek(https, "old.test", roots); err != nil || leaf.SerialNumber.Cmp(serial) != 0 {
		t.Errorf("the certificate is not in use any more: %v", err)
	}
	r.Up() // it knows neither the account nor the orders
	r.pass(day)
	r.ready("new", api.StatusTrue, "new.test")
	r.shows(https, "new.test")
}

// TestRetryAfter: a host waits as long as the authority says.
func TestRetryAfter(t *testing.T) {
	var refuse atomic.Bool
	refuse.Store(true)
	r := newRig(t, func(r *rig, c *Config) {
		to, err := url.Parse(r.Directory)
		r.must(err)
		to.Path = ""
		front := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.Out.Host = p.In.Host
		}, Transport: &http.Transport{TLSClientConfig: c.tls()}}
		proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if refuse.Load() && q.URL.Path == "/order-plz" {
				w.Header().Set("Retry-After", "7200")
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusTooManyRequests)
				fmt.Fprint(w, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders\u001b[31m"}`)
				return
			}
			front.ServeHTTP(w, q)
		}))
		r.Cleanup(func() {
			proxy.Close()
			front.Transport.(*http.Transport).CloseIdleConnections()
		})
		c.Directory = proxy.URL + "/dir"
		c.Roots = c.Roots.Clone()
		c.Roots.AddCert(proxy.Certificate())
	})
	r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "127.0.0.1")
	r.claim("shop", "app.test")
	message := r.ready("shop", api.StatusFalse, "answered rateLimited: too many orders (the authority has a limit for this")
	if strings.Contains(message, "\x1b") {
		t.Errorf("the message controls the terminal: %q", message)
	}
	before, after := r.now().Add(7100*time.Second), r.now().Add(7300*time.Second)
	_, text, _ := strings.Cut(message, "next try at ")
	if next, err := time.Parse(time.RFC3339, text); err != nil || next.Before(before.Add(-patience)) || next.After(after) {
		t.Errorf("the next try is at %q, want two hours from now (%v)", text, err)
	}
	refuse.Store(false)
	r.pass(2*time.Hour + time.Minute)
	r.ready("shop", api.StatusTrue, "app.test")
}

// TestOneOfMany: hosts that the authority refuses, or that lead elsewhere, delay no other host.
func TestOneOfMany(t *testing.T) {
	r := newRig(t, nil)
	r.agent("n1", "127.0.0.1")
	hosts := []string{"blocked.test", "elsewhere.test"}
	r.Lead("blocked.test", "127.0.0.1")
	r.Lead("elsewhere.test", "198.51.100.7")
	for i := range 48 {
		host := fmt.Sprintf("h%d.test", i)
		r.Lead(host, "127.0.0.1")
		hosts = append(hosts, host)
	}
	for i, host := range hosts {
		r.claim(fmt.Sprintf("p%d", i), host)
	}
	for i := range hosts[2:] {
		r.ready(fmt.Sprintf("p%d", i+2), api.StatusTrue, "valid until")
	}
	r.ready("p0", api.StatusFalse, "rejectedIdentifier")
	r.ready("p1", api.StatusFalse, "leads to 198.51.100.7")
}

// TestTwoAgents: the authority can ask either of the agents that a host leads to.
func TestTwoAgents(t *testing.T) {
	r := newRig(t, nil)
	one, two := r.agent("n1", "127.0.0.1"), r.agent("n2", "127.0.0.2")
	r.Lead("app.test", "127.0.0.1", "127.0.0.2")
	r.claim("shop", "app.test")
	r.ready("shop", api.StatusTrue, "app.test")
	if a, b := r.shows(one, "app.test"), r.shows(two, "app.test"); a.SerialNumber.Cmp(b.SerialNumber) != 0 {
		t.Error("the agents have different certificates")
	}
}

// TestMoves: a host that another project claims keeps its certificate.
func TestMoves(t *testing.T) {
	r := newRig(t, nil)
	https := r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "127.0.0.1")
	r.claim("shop", "app.test")
	r.ready("shop", api.StatusTrue, "app.test")
	serial, orders := r.shows(https, "app.test").SerialNumber, r.orders()
	_, err := carav1.NewProjectServiceClient(r.conn).DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop"})
	r.must(err)
	r.claim("next", "app.test")
	r.ready("next", api.StatusTrue, "app.test")
	if r.shows(https, "app.test").SerialNumber.Cmp(serial) != 0 || r.orders() != orders {
		t.Error("the host has got another certificate")
	}
}

// TestStoppedInTheMiddle: an order that a stopped loop has begun leaves nothing behind that stops the next one.
func TestStoppedInTheMiddle(t *testing.T) {
	r := newRig(t, nil)
	r.mute.Store(true)
	https := r.agent("n1", "127.0.0.1")
	r.Lead("app.test", "127.0.0.1")
	r.claim("shop", "app.test")
	r.await("an order waits for the agent", func() error {
		if r.orders() == 0 || !strings.Contains(r.Log(), "POST /authZ/") {
			return errSame
		}
		return nil
	})
	r.stop()
	r.mute.Store(false)
	r.obtain()
	r.ready("shop", api.StatusTrue, "app.test")
	r.shows(https, "app.test")
}
