package testacme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testserver"
)

// patience is how long the programs may take to answer.
const patience = 2 * time.Minute

// Authority is a certificate authority with its own DNS.
type Authority struct {
	// Directory is the URL for --acme-directory.
	Directory string
	// RootsFile has the certificate of the authority's own HTTPS server, for --acme-ca. It is not the root of what it issues.
	RootsFile string
	// DNS is the address of the DNS server that the authority uses, for --acme-resolver.
	DNS string

	tb                testing.TB
	dir               string
	management, roots string // of the DNS server and of the authority
	dns, ca           *testcluster.Process
	client            *http.Client
	config, listen    string
	httpPort          int
	keys              map[string]string // of external accounts, by id; nil if none is needed
}

// Start starts an authority that validates hosts at a port. They end with the test.
func Start(tb testing.TB, httpPort int) *Authority {
	tb.Helper()
	return StartAt(tb, httpPort, "")
}

// StartAt is Start for an authority that uses another DNS server, at an address, whose records the test sets there. Without an
// address it is Start.
func StartAt(tb testing.TB, httpPort int, dns string) *Authority {
	tb.Helper()
	a := &Authority{tb: tb, dir: tb.TempDir()}
	free := func() string {
		addr, err := testcluster.FreeAddress()
		a.must(err)
		return addr
	}
	listen := free()
	a.management, a.roots, a.DNS, a.Directory = free(), free(), free(), "https://"+listen+"/dir"
	a.listen, a.httpPort = listen, httpPort
	a.credentials()
	a.configure()
	if dns == "" {
		a.serveDNS()
	} else {
		a.DNS = dns
	}
	a.Up()
	tb.Cleanup(a.Down)
	return a
}

// serveDNS starts a DNS server whose records Lead sets.
func (a *Authority) serveDNS() {
	a.tb.Helper()
	var err error
	a.dns, err = testcluster.Start(filepath.Join(a.dir, "dns.log"), os.Environ(), program(a.tb, "pebble-challtestsrv"),
		"-dnsserver", a.DNS, "-management", a.management, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv4", "", "-defaultIPv6", "")
	a.must(err)
	a.tb.Cleanup(func() { a.must(a.dns.Kill()) })
	a.await("http://"+a.management+"/http-request-history", func() (*http.Response, error) {
		return http.Post("http://"+a.management+"/http-request-history", "application/json", strings.NewReader(`{"host":"x"}`)) //nolint:noctx // the test ends it
	})
}

// program returns the path of one of the authority's programs.
func program(tb testing.TB, name string) string {
	tb.Helper()
	return testneed.Build(tb, testneed.Pinned{Name: name, Folder: "testacme/pebble", Module: "github.com/letsencrypt/pebble/v2", Package: "cmd/" + name})
}

// credentials makes the certificate of the authority's HTTPS server.
func (a *Authority) credentials() {
	config, text, err := testserver.Certificate()
	a.must(err)
	key, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
	a.must(err)
	a.RootsFile = filepath.Join(a.dir, "server.pem")
	a.must(os.WriteFile(a.RootsFile, text, 0o600))
	a.must(os.WriteFile(filepath.Join(a.dir, "server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	a.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
}

// Bind restarts the authority, which then knows nothing and has accounts only for the holder of a key, in base64url, with an id.
func (a *Authority) Bind(id, key string) {
	a.tb.Helper()
	a.Down()
	a.keys = map[string]string{id: key}
	a.configure()
	a.Up()
}

func (a *Authority) configure() {
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": a.listen, "managementListenAddress": a.roots, "httpPort": a.httpPort, "tlsPort": 1, "keyAlgorithm": "ecdsa",
		"certificate": a.RootsFile, "privateKey": filepath.Join(a.dir, "server.key"), "retryAfter": map[string]int{"authz": 1, "order": 1},
		"domainBlocklist": []string{"blocked.test"}, "externalAccountBindingRequired": len(a.keys) > 0, "externalAccountMACKeys": a.keys,
		"profiles": map[string]any{"default": map[string]any{"description": "of the tests", "validityPeriod": 90 * 24 * 3600}},
	}})
	a.must(err)
	a.config = filepath.Join(a.dir, "pebble.json")
	a.must(os.WriteFile(a.config, text, 0o600))
}

// Up starts the authority.
func (a *Authority) Up() {
	a.tb.Helper()
	var err error
	a.ca, err = testcluster.Start(filepath.Join(a.dir, "pebble.log"), append(os.Environ(), "PEBBLE_VA_NOSLEEP=1"),
		program(a.tb, "pebble"), "-config", a.config, "-dnsserver", a.DNS)
	a.must(err)
	a.await(a.Directory, func() (*http.Response, error) { return a.client.Get(a.Directory) }) //nolint:noctx // the test ends it
}

// Down stops the authority, which forgets everything.
func (a *Authority) Down() {
	a.tb.Helper()
	if !a.ca.Exited() {
		a.must(a.ca.Kill())
	}
}

// Log returns what the authority has logged.
func (a *Authority) Log() string {
	text, err := os.ReadFile(filepath.Join(a.dir, "pebble.log"))
	a.must(err)
	return string(text)
}

// Roots returns the root of the certificates that the authority issues.
func (a *Authority) Roots() *x509.CertPool {
	a.tb.Helper()
	resp, err := a.client.Get("https://" + a.roots + "/roots/0") //nolint:noctx // the test ends it
	a.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	a.must(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		a.tb.Fatalf("the authority has no root: %s", text)
	}
	return pool
}

// Advise sets the window in which the authority wants a certificate to be renewed, and the page that explains it.
func (a *Authority) Advise(leaf *x509.Certificate, start, end time.Time, page string) {
	a.tb.Helper()
	answer, err := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": start, "end": end}, "explanationURL": page})
	a.must(err)
	text, err := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), "ARIResponse": string(answer),
	})
	a.must(err)
	resp, err := a.client.Post("https://"+a.roots+"/set-renewal-info/", "application/json", bytes.NewReader(text)) //nolint:noctx // the test ends it
	a.must(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		a.tb.Fatalf("set the renewal info: %s", resp.Status)
	}
}

// Lead sets the addresses of a host; none removes them.
func (a *Authority) Lead(host string, addresses ...string) {
	a.tb.Helper()
	a.post("/clear-a", map[string]any{"host": host + "."})
	if len(addresses) > 0 {
		a.post("/add-a", map[string]any{"host": host + ".", "addresses": addresses})
	}
}

func (a *Authority) post(path string, body any) {
	text, err := json.Marshal(body)
	a.must(err)
	resp, err := http.Post("http://"+a.management+path, "application/json", bytes.NewReader(text)) //nolint:noctx // the test ends it
	a.must(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		a.tb.Fatalf("%s: %s", path, resp.Status)
	}
}

// Resolver resolves with the authority's DNS.
func (a *Authority) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, a.DNS)
	}}
}

// await waits until a URL answers.
func (a *Authority) await(url string, get func() (*http.Response, error)) {
	a.tb.Helper()
	ctx, cancel := context.WithTimeout(a.tb.Context(), patience)
	defer cancel()
	a.must(testcluster.WaitFor(ctx, url+" answers", func(context.Context) error {
		resp, err := get()
		if err != nil {
			return err
		}
		return errors.Join(resp.Body.Close())
	}))
}

func (a *Authority) must(err error) {
	a.tb.Helper()
	if err != nil {
		a.tb.Fatal(err)
	}
}
