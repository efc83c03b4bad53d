package forward

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/internal/connlimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a standby and an active server of one cluster.
type rig struct {
	*testing.T
	id      *identity.Identity
	active  *http.Server
	inner   *killable // of the active server
	receive *Receiver
	forward *Forwarder
	gone    chan string
	watched chan string // log lines of the active server
	address string      // of the standby
}

// killable is a listener whose connections can be closed like those of a process that was killed.
type killable struct {
	net.Listener
	conns chan net.Conn
}

func (k *killable) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if err == nil {
		k.conns <- conn
	}
	return conn, err
}

func (k *killable) kill() {
	_ = k.Close()
	for {
		select {
		case conn := <-k.conns:
			_ = conn.Close()
		default:
			return
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type connKey struct{}

func newRig(t *testing.T) *rig {
	t.Helper()
	id, err := identity.Open(identity.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, id: id, gone: make(chan string, 1), watched: make(chan string, 100)}
	r.serve()
	r.forward = New(Config{ID: "standby-1", Identity: id, Logger: slog.New(slog.DiscardHandler), Gone: func(holder string) { r.gone <- holder }})
	inner := listen(t)
	r.address = inner.Addr().String()
	refuse := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "standby", http.StatusServiceUnavailable)
	}), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	l := identity.NewListener(r.forward.Listen(t.Context(), connlimit.New(inner, connlimit.Config{})), id.TLSConfig())
	go func() { served <- refuse.Serve(l) }()
	t.Cleanup(func() {
		r.forward.Close()
		_ = refuse.Close()
		<-served //nolint:errcheck // it was closed
	})
	return r
}

// serve starts an active server, which says who has called.
func (r *rig) serve() {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	secure := r.id.TLSConfig()
	secure.NextProtos = append(secure.NextProtos, Protocol)
	r.receive = NewReceiver("active", slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})))
	r.inner = &killable{listen(r.T), make(chan net.Conn, 100)}
	r.active = &http.Server{
		Protocols: protocols, ReadHeaderTimeout: time.Minute,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){Protocol: r.receive.Serve},
		ConnContext:  func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, Of(c)) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			conn := q.Context().Value(connKey{}).(*Conn)
			name := "nobody"
			if q.TLS != nil && len(q.TLS.PeerCertificates) > 0 {
				name = q.TLS.PeerCertificates[0].Subject.CommonName
			}
			_, _ = fmt.Fprintf(w, "%s from %s via %s over HTTP/%d secure %v\n", name, q.RemoteAddr, conn.Via(), q.ProtoMajor, conn.Secure())
			_ = http.NewResponseController(w).Flush()
			if q.URL.Path == "/wait" {
				<-q.Context().Done()
			}
		}),
	}
	direct := identity.NewListener(connlimit.New(r.inner, connlimit.Config{}), secure)
	forwarded := r.receive.Clients(connlimit.Config{}, r.id.TLSConfig())
	served := make(chan error, 2)
	active, receive := r.active, r.receive
	go func() { served <- active.Serve(direct) }()
	go func() { served <- active.Serve(forwarded) }()
	r.Cleanup(func() {
		_ = active.Close()
		_ = receive.Close()
		<-served //nolint:errcheck // it was closed
		<-served //nolint:errcheck // it was closed
	})
}

// node returns a TLS configuration with the certificate of a node.
func (r *rig) node(name string) *tls.Config {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: api.PrefixNode + name}}, key)
	r.must(err)
	cert, _, err := r.id.SignNode(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), name)
	r.must(err)
	block, _ := pem.Decode(cert)
	cfg := r.client()
	cfg.ServerName = identity.ServerName
	cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}
	return cfg
}

// client returns the TLS configuration of a client that knows the authority.
func (r *rig) client() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.id.CAPEM())
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// Write takes a log line of the active server.
func (r *rig) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "watches") {
		r.watched <- string(line)
	}
	return len(line), nil
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// transport returns a transport whose connections end with the test.
func (r *rig) transport(cfg *tls.Config, http2 bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	protocols.SetUnencryptedHTTP2(http2)
	t := &http.Transport{TLSClientConfig: cfg, Protocols: protocols}
	r.Cleanup(t.CloseIdleConnections)
	return t
}

// get asks the standby and returns the first line of the answer.
func (r *rig) get(t *http.Transport, scheme, path string) (string, *http.Response) {
	r.Helper()
	q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, scheme+"://"+r.address+path, http.NoBody)
	r.must(err)
	answer, err := t.RoundTrip(q)
	r.must(err)
	r.Cleanup(func() { _ = answer.Body.Close() })
	line, err := bufio.NewReader(answer.Body).ReadString('\n')
	r.must(err)
	return strings.TrimSpace(line), answer
}

// TestForward: clients of a standby get the answer of the active server, which knows who they are and from where they come.
func TestForward(t *testing.T) {
	r := newRig(t)
	r.forward.Point(t.Context(), "one", r.inner.Addr().String())
	for name, tt := range map[string]struct {
		scheme string
		cfg    *tls.Config
		http2  bool
		want   string
	}{
		"plain":     {"http", nil, false, "nobody from 127.0.0.1:* via standby-1 over HTTP/1 secure false"},
		"plain h2":  {"http", nil, true, "nobody from 127.0.0.1:* via standby-1 over HTTP/2 secure false"},
		"secure":    {"https", r.client(), false, "nobody from 127.0.0.1:* via standby-1 over HTTP/1 secure true"},
		"secure h2": {"https", r.client(), true, "nobody from 127.0.0.1:* via standby-1 over HTTP/2 secure true"},
		"node":      {"https", r.node("n1"), true, "node/n1 from 127.0.0.1:* via standby-1 over HTTP/2 secure false"},
	} {
		t.Run(name, func(t *testing.T) {
			line, _ := r.get(r.transport(tt.cfg, tt.http2), tt.scheme, "/")
			before, after, _ := strings.Cut(tt.want, "*")
			if !strings.HasPrefix(line, before) || !strings.HasSuffix(line, after) || strings.Contains(line, r.address) {
				t.Errorf("got %q, want %q", line, tt.want)
			}
		})
	}
}

// TestResume: a client of a standby resumes its session, so that its next connection needs no whole handshake.
func TestResume(t *testing.T) {
	r := newRig(t)
	r.forward.Point(t.Context(), "one", r.inner.Addr().String())
	cfg := r.client()
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, want := range []bool{false, true} {
		if _, answer := r.get(r.transport(cfg, false), "https", "/"); answer.TLS.DidResume != want {
			t.Errorf("resumed is %v, want %v", answer.TLS.DidResume, want)
		}
	}
}

// TestAnotherServerIsActive: the connections to the earlier one are closed, and new ones go to the next.
func TestAnotherServerIsActive(t *testing.T) {
	r := newRig(t)
	r.forward.Point(t.Context(), "one", r.inner.Addr().String())
	_, open := r.get(r.transport(nil, false), "http", "/wait")
	r.serve()
	r.forward.Point(t.Context(), "two", r.inner.Addr().String())
	if _, err := io.ReadAll(open.Body); err == nil {
		t.Log("the answer ended") // how it ends does not matter
	}
	if line, _ := r.get(r.transport(nil, false), "http", "/"); !strings.Contains(line, "standby-1") {
		t.Errorf("got %q", line)
	}
	if len(r.gone) > 0 {
		t.Error("a server that was left is said to have ended")
	}
}

// told is a listener that tells when it has accepted a connection.
type told struct {
	net.Listener
	accepted chan struct{}
}

func (l told) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		close(l.accepted)
	}
	return conn, err
}

// TestKept: what has connected to a standby that becomes active is kept, with the bytes that were read.
func TestKept(t *testing.T) {
	r := newRig(t)
	kept := make(chan net.Conn, 1)
	f := New(Config{ID: "standby-2", Identity: r.id, Logger: slog.New(slog.DiscardHandler), Keep: func(conn net.Conn) { kept <- conn }})
	reading := make(chan struct{})
	l := f.Listen(t.Context(), told{listen(t), reading})
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	r.must(err)
	defer client.Close()
	_, err = io.WriteString(client, "GET / HTTP/1.1\r\n\r\n")
	r.must(err)
	<-reading
	r.must(l.Close())
	<-ended //nolint:errcheck // it was closed
	conn := <-kept
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "GET / HTTP/1.1\r\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

// TestGone: the end of a program that was killed is noticed at once, and clients get an answer while nobody is active. A server that
// shuts down says so first: it gives its lock back itself.
func TestGone(t *testing.T) {
	r := newRig(t)
	r.forward.Point(t.Context(), "one", r.inner.Addr().String())
	r.get(r.transport(nil, false), "http", "/")
	<-r.watched
	r.inner.kill()
	if holder := <-r.gone; holder != "one" {
		t.Errorf("%q is gone", holder)
	}
	if line, answer := r.get(r.transport(nil, false), "http", "/"); answer.StatusCode != http.StatusServiceUnavailable || line != "standby" {
		t.Errorf("got %s %q while nobody is active", answer.Status, line)
	}
}

func TestDrain(t *testing.T) {
	r := newRig(t)
	to := &target{holder: "one", address: r.inner.Addr().String(), ctx: t.Context()}
	conn, err := r.forward.dial(t.Context(), to, header{kind: kindWatch})
	r.must(err)
	said := make(chan bool)
	go func() { said <- r.forward.attend(to, conn) }()
	r.receive.Drain()
	if !<-said {
		t.Error("the server that shuts down does not say so")
	}
}

// TestStranger: only a server of the cluster can pass connections on. A node cannot, whatever its name is.
func TestStranger(t *testing.T) {
	r := newRig(t)
	for name, cfg := range map[string]*tls.Config{"a node": r.node("cara-server"), "nobody": r.client()} {
		cfg.ServerName, cfg.NextProtos = identity.ServerName, []string{Protocol}
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", r.inner.Addr().String())
		r.must(err)
		_ = header{kind: kindPlain, client: clientOf(conn), via: "x"}.write(conn)
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // it may be closed already
		if answer, err := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("%s gets %q, %v", name, answer, err)
		}
		_ = conn.Close()
	}
}

func TestHeader(t *testing.T) {
	for line, want := range map[string]string{
		"plain 10.0.0.1:5 id":            "",
		"node [fd00::1]:5 id":            "",
		"watch - id":                     "",
		"secure nowhere id":              "no address of a client",
		"other 10.0.0.1:5 id":            "does not know",
		"plain 10.0.0.1:5 ":              "has no kind",
		"":                               "has no kind",
		strings.Repeat("x", maxHeader+1): "too long",
	} {
		_, err := readHeader(strings.NewReader(line + "\n"))
		if got := fmt.Sprint(err); (want == "") != (err == nil) || !strings.Contains(got, want) {
			t.Errorf("%.40q: %v, want %q", line, err, want)
		}
	}
}
