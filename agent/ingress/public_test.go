package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
)

// front is an agent with public listeners.
type front struct {
	*Ingress
	internal, http, https string
	ca                    *testca.Authority
	stop                  func()
}

func publicFront(t *testing.T, cfg Config) *front {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var on Listeners
	f := &front{Ingress: New(cfg), ca: ca}
	for _, one := range []struct {
		listener *net.Listener
		address  *string
	}{{&on.Internal, &f.internal}, {&on.PublicHTTP, &f.http}, {&on.PublicHTTPS, &f.https}} {
		if *one.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		*one.address = (*one.listener).Addr().String()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, on) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(f.stop)
	return f
}

// certificate makes a certificate for names.
func (f *front) certificate(t *testing.T, id string, names ...string) *carav1.Certificate {
	t.Helper()
	chain, key, err := f.ca.Site(time.Now().Add(time.Hour), names...)
	if err != nil {
		t.Fatal(err)
	}
	return &carav1.Certificate{Id: id, Names: names, Chain: chain, Key: key}
}

// client connects to the HTTPS listener for every host.
func (f *front) client(t *testing.T, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: f.ca.Pool()}, Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", f.https)
		},
	}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func fetch(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func publicRoute(host, path string, port int32) *carav1.Route {
	return &carav1.Route{Host: host, Path: path, Project: "p", Service: "w", Port: port, Node: "n1", Scope: api.ScopePublic, Tls: &carav1.IngressTLS{}}
}

func seen(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "host=%s proto=%s for=%s uri=%s user=%s auth=%s", r.Host, r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-For"),
		r.URL.RequestURI(), r.Header.Get("X-Forwarded-User"), r.Header.Get("Authorization"))
}

// TestPublicHosts: what each listener answers for public and internal hosts and paths.
func TestPublicHosts(t *testing.T) {
	ip, port := service(t, seen)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip)})
	strict := publicRoute("pub.test", "", port)
	strict.Tls.Hsts = &carav1.IngressHSTS{MaxAge: "1h", IncludeSubdomains: true}
	inside := &carav1.Route{Host: "pub.test", Path: "/admin", Project: "p", Service: "w", Port: port, Node: "n1"}
	hidden := &carav1.Route{Host: "int.test", Project: "p", Service: "w", Port: port, Node: "n1"}
	plain := publicRoute("plain.test", "", port)
	plain.Tls.Mode = api.TLSOff
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{hidden, plain}, Hosts: []*carav1.HostRoutes{{Host: "pub.test", Routes: []*carav1.Route{strict, inside}}}})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "pub.test"), f.certificate(t, "b", "*.test")}})

	for _, h2 := range []bool{false, true} {
		c := f.client(t, h2)
		resp, body := fetch(t, c, "https://pub.test/x?a=b", "X-Forwarded-User", "root", "X-Cara-Scope", "x", "Authorization", "Bearer t")
		if want := "host=pub.test proto=https for=127.0.0.1 uri=/x?a=b user= auth=Bearer t"; body != want || resp.ProtoMajor == 2 != h2 {
			t.Errorf("%s: %q, want %q", resp.Proto, body, want)
		}
		if got := resp.Header.Get("Strict-Transport-Security"); got != "max-age=3600; includeSubDomains" {
			t.Errorf("Strict-Transport-Security is %q", got)
		}
		for url, want := range map[string]string{
			"https://pub.test/admin":        "No project claims this path",
			"https://pub.test/x/..//admin":  "No project claims this path", // both readings must look the same as an unknown path
			"https://int.test/":             "No project claims the host",
			"https://other.test/":           "No project claims the host",
			"https://pub.test/admin/secret": "No project claims this path",
		} {
			if resp, body := fetch(t, c, url); resp.StatusCode != 404 || !strings.Contains(body, want) || resp.Header.Get("Strict-Transport-Security") != "" {
				t.Errorf("%s: %d %q", url, resp.StatusCode, body)
			}
		}
		if resp, _ := fetch(t, c, "https://pub.test/", "Host", "int.test"); resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("another host on the same connection: %d", resp.StatusCode)
		}
	}
	for host, want := range map[string]struct {
		status   int
		location string
	}{
		"pub.test":      {308, "https://pub.test/x/%41?a=b%20c"},
		"pub.test:8080": {308, "https://pub.test:" + portOf(f.https) + "/x/%41?a=b%20c"},
		"plain.test":    {200, ""},
		"int.test":      {404, ""},
		"nobody.test":   {404, ""},
	} {
		status, _, location := sendTo(t, f.http, "GET", host, "/x/%41?a=b%20c")
		if status != want.status || location != want.location {
			t.Errorf("http://%s: %d to %q, want %v", host, status, location, want)
		}
	}
	for _, host := range []string{"pub.test", "int.test", "plain.test"} {
		if status, _ := get(t, f.internal, host, nil); status != 200 {
			t.Errorf("the internal listener answers %d for %s", status, host)
		}
	}
	if status, _ := get(t, f.internal, "pub.test", http.Header{"X-Cara-Scope": {"Public"}}); status != 200 {
		t.Errorf("a client's own scope counts: %d", status)
	}
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// sendTo sends one request for a host with this target as it is, and returns status, body and location.
func sendTo(t *testing.T, addr, method, host, target string) (int, string, string) {
	t.Helper()
	c := raw(t, addr, method+" "+target+" HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
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

// TestHandshakesThatAreRefused: no name, an unknown name, old versions, and no default certificate.
func TestHandshakesThatAreRefused(t *testing.T) {
	f := publicFront(t, Config{Node: "n1", Endpoint: down})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.test"), f.certificate(t, "w", "*.w.test")}})
	sessions := tls.NewLRUClientSessionCache(10)
	shake := func(name string, change func(*tls.Config)) error {
		config := &tls.Config{ServerName: name, RootCAs: f.ca.Pool(), ClientSessionCache: sessions}
		if change != nil {
			change(config)
		}
		c, err := tls.Dial("tcp", f.https, config)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Handshake()
	}
	for _, name := range []string{"a.test", "A.test", "x.w.test"} {
		if err := shake(name, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	loose := func(c *tls.Config) { c.InsecureSkipVerify = true }
	for _, name := range []string{"", "b.test", "w.test", "x.y.w.test", "127.0.0.1"} {
		if err := shake(name, loose); err == nil || !strings.HasSuffix(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v, want unrecognized_name", name, err)
		}
	}
	if err := shake("a.test", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11; c.MinVersion = tls.VersionTLS10 }); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	if err := shake("a.test", func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	}); err == nil {
		t.Error("a cipher suite without authenticated encryption is accepted")
	}
	c, err := net.Dial("tcp", f.https)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if answer, _ := io.ReadAll(c); len(answer) > 0 {
		t.Errorf("plain HTTP on the HTTPS listener is answered with %q", answer)
	}
}

// TestACertificateIsReplaced under an open connection, which lives on, and removed, after which no session is resumed.
func TestACertificateIsReplaced(t *testing.T) {
	ip, port := service(t, echoUpgrade)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip)})
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{publicRoute("a.test", "", port)}})
	serial := func(config *tls.Config) (string, error) {
		c, err := tls.Dial("tcp", f.https, config)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // reads the session ticket, if there is one
		_, _ = c.Read(make([]byte, 1))
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
	}
	config := &tls.Config{ServerName: "a.test", RootCAs: f.ca.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "secret/s", "a.test")}})
	open, err := tls.Dial("tcp", f.https, &tls.Config{ServerName: "a.test", RootCAs: f.ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	fmt.Fprint(open, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(open)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("no upgrade: %v %v", resp, err)
	}
	first, err := serial(&tls.Config{ServerName: "a.test", RootCAs: f.ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	f.ApplyCredentials(&carav1.Credentials{Certificates: []*carav1.Certificate{f.certificate(t, "secret/s", "a.test")}})
	second, err := serial(config)
	if err != nil || second == first {
		t.Errorf("serial %s after %s: %v", second, first, err)
	}
	f.ApplyCredentials(&carav1.Credentials{RemovedCertificates: []string{"secret/s"}})
	if s, err := serial(config); err == nil {
		t.Errorf("a removed certificate is still used: %s", s)
	}
	fmt.Fprint(open, "still here\n")
	if line, err := r.ReadString('\n'); err != nil || line != "echo still here\n" {
		t.Errorf("the open connection: %q %v", line, err)
	}
}

// TestChallenges: only the exact token of the host is answered, on plain HTTP.
func TestChallenges(t *testing.T) {
	ip, port := service(t, seen)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip)})
	plain := publicRoute("plain.test", "", port)
	plain.Tls.Mode = api.TLSOff
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{plain, publicRoute("a.test", "", port)}})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Challenges: []*carav1.Challenge{{Host: "a.test", Token: "tok-1", KeyAuthorization: "tok-1.key"}, {Host: "new.test", Token: "tok-2", KeyAuthorization: "tok-2.key"}}})
	const at = "/.well-known/acme-challenge/"
	for _, tt := range []struct {
		method, host, path string
		status             int
		body               string
	}{
		{"GET", "a.test", at + "tok-1", 200, "tok-1.key"},
		{"GET", "A.TEST", at + "tok-1", 200, "tok-1.key"},
		{"GET", "new.test", at + "tok-2", 200, "tok-2.key"}, // before any route
		{"GET", "a.test", at + "tok-2", 308, ""},
		{"GET", "a.test", at + "tok-1/", 308, ""},
		{"GET", "a.test", at + "tok%2D1", 308, ""},
		{"GET", "a.test", at + "x/../tok-1", 308, ""},
		{"GET", "a.test", at, 308, ""},
		{"POST", "a.test", at + "tok-1", 308, ""},
		{"GET", "plain.test", at + "tok-1", 200, "host=plain.test"}, // to the service
	} {
		status, body, _ := sendTo(t, f.http, tt.method, tt.host, tt.path)
		if status != tt.status || !strings.HasPrefix(body, tt.body) {
			t.Errorf("%s %s %s: %d %q", tt.method, tt.host, tt.path, status, body)
		}
	}
	f.ApplyCredentials(&carav1.Credentials{RemovedChallenges: []string{"tok-1"}})
	if status, _, _ := sendTo(t, f.http, "GET", "a.test", at+"tok-1"); status != 308 {
		t.Errorf("a removed challenge is answered: %d", status)
	}
}

// TestPublicAcrossAgents: the second agent gets the client's address, user and scheme, and checks the scope.
func TestPublicAcrossAgents(t *testing.T) {
	ip, port := service(t, seen)
	nodes := cluster(t)
	second, addr2 := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2")})
	f := publicFront(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	route := publicRoute("a.test", "", port)
	route.Node, route.IngressAddress = "n2", addr2
	locked := publicRoute("a.test", "/locked", port)
	locked.Node, locked.IngressAddress, locked.PasswordList, locked.Features = "n2", addr2, "people", []string{api.FeatureBasicAuth}
	table := &carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{{Host: "a.test", Routes: []*carav1.Route{route, locked}}}}
	f.Apply(table)
	second.Apply(table)
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.test")}, PasswordLists: people(t)})
	c := f.client(t, true)
	if _, body := fetch(t, c, "https://a.test/"); body != "host=a.test proto=https for=127.0.0.1 uri=/ user= auth=" {
		t.Errorf("got %q", body)
	}
	if _, body := fetch(t, c, "https://ann:right@a.test/locked"); body != "host=a.test proto=https for=127.0.0.1 uri=/locked user=ann auth=" {
		t.Errorf("got %q", body)
	}
	inside := &carav1.Route{Host: "a.test", Project: "p", Service: "w", Port: port, Node: "n2"}
	second.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{inside}}) // the second agent knows better already
	if resp, body := fetch(t, c, "https://a.test/"); resp.StatusCode != 404 {
		t.Errorf("an internal host is public through another agent: %d %q", resp.StatusCode, body)
	}
}

func people(t *testing.T) []*carav1.PasswordList {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), 4)
	if err != nil {
		t.Fatal(err)
	}
	return []*carav1.PasswordList{{Id: "people", Users: map[string]string{"ann": string(hash)}}}
}

// TestBasicAuth: networks are checked first, then the scheme, then the password, then redirects.
func TestBasicAuth(t *testing.T) {
	ip, port := service(t, seen)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip)})
	locked := func(path string) *carav1.Route {
		r := publicRoute("a.test", path, port)
		r.PasswordList, r.Features = "people", []string{api.FeatureBasicAuth}
		return r
	}
	limited, moved := locked("/limited"), locked("/moved")
	limited.Allow = []string{"192.0.2.0/24"}
	moved.Redirect = &carav1.IngressRedirect{To: "/new"}
	newer := locked("")
	newer.Host, newer.Features = "newer.test", append(newer.Features, "somethingNew")
	f.Apply(&carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{
		{Host: "a.test", Routes: []*carav1.Route{locked(""), limited, moved}}, {Host: "newer.test", Routes: []*carav1.Route{newer}},
	}})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.test")}})
	c := f.client(t, false)
	if resp, body := fetch(t, c, "https://ann:right@a.test/"); resp.StatusCode != 503 || !strings.Contains(body, "type basicAuth") {
		t.Errorf("without the list: %d %q", resp.StatusCode, body)
	}
	f.ApplyCredentials(&carav1.Credentials{PasswordLists: people(t)})
	for url, want := range map[string]int{
		"https://a.test/": 401, "https://ann:right@a.test/": 200, "https://ann:wrong@a.test/": 401, "https://bob:right@a.test/": 401,
		"https://a.test/limited": 403, "https://ann:right@a.test/limited": 403, "https://a.test/moved": 401, "https://ann:right@a.test/moved": 308,
	} {
		if resp, body := fetch(t, c, url); resp.StatusCode != want {
			t.Errorf("%s: %d %q, want %d", url, resp.StatusCode, body, want)
		}
	}
	resp, _ := fetch(t, c, "https://a.test/")
	if got := resp.Header.Get("Www-Authenticate"); got != `Basic realm="a.test", charset="UTF-8"` {
		t.Errorf("WWW-Authenticate is %q", got)
	}
	if status, _, _ := sendTo(t, f.http, "GET", "a.test", "/"); status != 308 {
		t.Errorf("plain HTTP asks for the password: %d", status)
	}
	if status, body := get(t, f.internal, "a.test", http.Header{"Authorization": {"Basic YW5uOnJpZ2h0"}}); status != 200 || !strings.Contains(body, "user=ann auth=") {
		t.Errorf("internal: %d %q", status, body)
	}
	if status, _ := get(t, f.internal, "newer.test", nil); status != 404 {
		t.Errorf("a host with an unknown feature: %d", status)
	}
}

// TestRestartWithoutTheServer: after a restart the agent serves the hosts with their certificates and passwords.
func TestRestartWithoutTheServer(t *testing.T) {
	ip, port := service(t, seen)
	dir := t.TempDir()
	cfg := Config{Node: "n1", Endpoint: up(ip), File: filepath.Join(dir, "routes.json"), CredentialsFile: filepath.Join(dir, "credentials.json")}
	f := publicFront(t, cfg)
	locked := publicRoute("a.test", "", port)
	locked.PasswordList, locked.Features = "people", []string{api.FeatureBasicAuth}
	f.Apply(&carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{{Host: "a.test", Routes: []*carav1.Route{locked}}}})
	old := f.certificate(t, "old", "old.test")
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{old}})
	f.ApplyCredentials(&carav1.Credentials{Full: true, More: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.test")}})
	if f.credentials.certificates.Find("old.test") == nil {
		t.Error("a certificate is forgotten before the list is complete")
	}
	f.ApplyCredentials(&carav1.Credentials{PasswordLists: people(t)})
	if f.credentials.certificates.Find("old.test") != nil {
		t.Error("a certificate that is not in the complete list is kept")
	}
	f.stop()
	info, err := os.Stat(cfg.CredentialsFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("credentials: %v %v", info, err)
	}
	again := publicFront(t, cfg)
	again.ca = f.ca
	if resp, body := fetch(t, again.client(t, true), "https://ann:right@a.test/"); resp.StatusCode != 200 {
		t.Errorf("after a restart: %d %q", resp.StatusCode, body)
	}
}
