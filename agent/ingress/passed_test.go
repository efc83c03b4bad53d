package ingress

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/ports"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
)

// secure is a service with TLS of its own, for a.b. It greets with what the client has sent, and then echoes.
func secure(t *testing.T) (port int32, ca *testca.Authority) {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Site(time.Now().Add(time.Hour), "a.b")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"own/1"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
				_ = c.(*tls.Conn).CloseWrite()
			}()
		}
	}()
	return int32(l.Addr().(*net.TCPAddr).Port), ca
}

// passes starts two agents with ports, of which the service is at the second one if hop is true.
func passes(t *testing.T, port int32, hop bool, change func(*Config, *carav1.Route)) *front {
	t.Helper()
	nodes := cluster(t)
	route := &carav1.Route{
		Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n1", Scope: api.ScopePublic, Protocol: api.TargetTLS, Features: []string{api.FeatureTLS},
	}
	build := func(node string, endpoint func(string, string) (string, func(), bool)) (Config, func(*Ingress)) {
		lookup := &late{}
		open := ports.New(ports.Config{
			Node: node, Peers: nodes(node), Endpoint: endpoint, Endpoints: func() <-chan struct{} { return nil }, Hosts: lookup,
			Logger: slog.New(slog.DiscardHandler), Limits: ports.Limits{Hold: time.Minute},
		})
		return Config{Node: node, Peers: nodes(node), Endpoint: endpoint, Ports: open.Serve, Pass: open.Pass}, func(i *Ingress) { lookup.Ingress = i }
	}
	endpoint := up("127.0.0.1")
	var second *Ingress
	if hop {
		cfg, set := build("n2", endpoint)
		var address string
		second, address = serving(t, cfg)
		set(second)
		route.Node, route.IngressAddress, endpoint = "n2", address, down
	}
	cfg, set := build("n1", endpoint)
	if change != nil {
		change(&cfg, route)
	}
	f := publicFront(t, cfg)
	set(f.Ingress)
	table := &carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{{Host: "a.b", Routes: []*carav1.Route{route}}}}
	f.Apply(table)
	if second != nil {
		second.Apply(table)
	}
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "c", "c.d")}})
	return f
}

type late struct{ *Ingress }

// speaks sends bytes to a host over TLS and wants them back.
func speaks(conn net.Conn, ca *testca.Authority, host string) error {
	secured := tls.Client(conn, &tls.Config{RootCAs: ca.Pool(), ServerName: host, NextProtos: []string{"own/1", "http/1.1"}})
	sent := bytes.Repeat([]byte("x"), 1<<20)
	go func() {
		_, _ = secured.Write(sent)
		_ = secured.CloseWrite()
	}()
	got, err := io.ReadAll(secured)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d bytes came back", len(got))
	}
	return err
}

// slowly sends each byte of the first message alone.
type slowly struct {
	net.Conn
	sent bool
}

func (c *slowly) Write(p []byte) (int, error) {
	if c.sent {
		return c.Conn.Write(p)
	}
	c.sent = true
	for n := range p {
		if _, err := c.Conn.Write(p[n : n+1]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

func TestPassedTLS(t *testing.T) {
	for _, hop := range []bool{false, true} {
		port, ca := secure(t)
		f := passes(t, port, hop, nil)
		for name, addr := range map[string]string{"public": f.https, "internal": f.internal} {
			if err := speaks(raw(t, addr, ""), ca, "a.b"); err != nil {
				t.Errorf("hop %v, %s: %v", hop, name, err)
			}
			if err := speaks(&slowly{Conn: raw(t, addr, "")}, ca, "A.B"); err != nil && !strings.Contains(err.Error(), "not A.B") {
				t.Errorf("hop %v, %s, byte by byte: %v", hop, name, err)
			}
		}
		if err := speaks(raw(t, f.https, ""), ca, "x.b"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("an unknown host: %v", err)
		}
		if status, _, location := sendTo(t, f.http, "GET", "a.b", "/x"); status != 308 || location != "https://a.b/x" {
			t.Errorf("over HTTP: %d to %q", status, location)
		}
		if status, body := get(t, f.internal, "a.b", nil); status != http.StatusMisdirectedRequest || !strings.Contains(body, "has TLS itself") {
			t.Errorf("over internal HTTP: %d %q", status, body)
		}
	}
}

// TestWhoIsPassed: the scope, the access list and PROXY headers apply to connections that are passed on.
func TestWhoIsPassed(t *testing.T) {
	port, ca := secure(t)
	for name, tt := range map[string]struct {
		change           func(*Config, *carav1.Route)
		before           string
		public, internal string // a pattern of the error
	}{
		"internal":              {func(_ *Config, r *carav1.Route) { r.Scope = "" }, "", "unrecognized name", ""},
		"forbidden":             {func(_ *Config, r *carav1.Route) { r.Allow = []string{"192.0.2.0/24"} }, "", "reset", "reset"},
		"allowed":               {func(_ *Config, r *carav1.Route) { r.Allow = []string{"127.0.0.0/8"} }, "", "", ""},
		"allowed by its header": {func(c *Config, r *carav1.Route) { c.ProxyProtocolFrom, r.Allow = loopback, []string{"192.0.2.0/24"} }, from("192.0.2.1"), "", ""},
		"another header":        {func(c *Config, r *carav1.Route) { c.ProxyProtocolFrom, r.Allow = loopback, []string{"127.0.0.0/8"} }, v1("192.0.2.1"), "reset", "reset"},
		"no header":             {func(c *Config, _ *carav1.Route) { c.ProxyProtocolFrom = loopback }, "", "EOF|reset", "not valid for any names"},
	} {
		f := passes(t, port, false, tt.change)
		for addr, want := range map[string]string{f.https: tt.public, f.internal: tt.internal} {
			err := speaks(raw(t, addr, tt.before), ca, "a.b")
			if (err == nil) != (want == "") || err != nil && !regexp.MustCompile(want).MatchString(err.Error()) {
				t.Errorf("%s, public %v: %v, want %q", name, addr == f.https, err, want)
			}
		}
	}
}

// TestGreetings: what a client can do before it has named a host. Each connection ends within the limits, with an alert if it is TLS.
func TestGreetings(t *testing.T) {
	port, _ := secure(t)
	f := passes(t, port, false, func(c *Config, _ *carav1.Route) { c.Limits = Limits{Header: 300 * time.Millisecond} })
	record := func(length int) string { return "\x16\x03\x01" + string([]byte{byte(length >> 8), byte(length)}) }
	long := strings.Repeat(record(16000)+"\x01\x00\xff\xff"+strings.Repeat("x", 15996), 5)
	for name, sent := range map[string]string{
		"one byte": "\x16", "half a record": record(500) + "\x01", "no hello": record(4) + "abcd", "an endless hello": long,
		"an old hello": "\x80\x2e\x01\x03\x01", "garbage": "\x16garbage that is no TLS at all",
	} {
		if got := said(t, f.https, sent); len(got) > 7 || got != "" && got[0] != 0x15 {
			t.Errorf("%s: %q", name, got)
		}
	}
	silent := passes(t, port, false, func(c *Config, _ *carav1.Route) { c.Limits = Limits{Header: time.Hour} })
	c := raw(t, silent.https, "\x16\x03\x01")
	silent.stop() // it does not wait for the rest of the hello
	if _, err := io.ReadAll(c); os.IsTimeout(err) {
		t.Error("the connection goes on")
	}
}
