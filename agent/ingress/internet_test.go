package ingress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestRenegotiation: a client that wants to negotiate again on a connection of TLS 1.2 is disconnected. OpenSSL does that at a line
// with an R.
func TestRenegotiation(t *testing.T) {
	openssl := testneed.Program(t, "openssl", "openssl")
	ip, port := service(t, seen)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip)})
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{publicRoute("a.b", "", port)}})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.b")}})
	for line, want := range map[string]string{"": "HTTP/1.1 200 OK", "R\n": "unexpected message"} {
		cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", f.https, "-servername", "a.b", "-tls1_2", "-state", "-ign_eof")
		if line != "" {
			cmd.Args = cmd.Args[:len(cmd.Args)-1] // with -ign_eof it takes no commands
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(in, line+"GET / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n")
		_ = cmd.Wait() // it fails if the server ends the connection
		_ = in.Close()
		if text := out.String(); !strings.Contains(text, want) || line != "" && strings.Contains(text, "200 OK") {
			t.Errorf("after %q: %s", line, text)
		}
	}
}

// soakEnv makes tests longer.
const soakEnv = "CARA_SOAK"

// strangers returns how many hosts the test tries in each way.
func strangers() int {
	if os.Getenv(soakEnv) != "" {
		return 100_000
	}
	return 20_000
}

// TestUnknownHosts: many hosts that nobody claims, in requests and in TLS handshakes, leave nothing behind: no memory, no series of
// metrics and few lines in the log.
func TestUnknownHosts(t *testing.T) {
	testneed.NotShort(t)
	var log lines
	registry := prometheus.NewRegistry()
	f := publicFront(t, Config{
		Node: "n1", Endpoint: down, Metrics: registry, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Pass: func(context.Context, string, bool, net.Addr, *net.TCPConn, []byte) {},
	})
	passed := publicRoute("passed.test", "", 1)
	passed.Protocol, passed.Features = api.TargetTLS, []string{api.FeatureTLS} // so that the handshakes are looked at
	f.Apply(&carav1.Routes{Full: true, FeatureHosts: []*carav1.HostRoutes{{Host: "passed.test", Routes: []*carav1.Route{passed}}}})
	count := strangers()
	for name, visit := range map[string]func(from, to int) error{
		"requests":   func(from, to int) error { return requests(f.internal, from, to) },
		"handshakes": func(from, to int) error { return handshakes(f.https, from, to) },
	} {
		if err := visit(0, 1000); err != nil {
			t.Fatal(err)
		}
		before, series := heap(), gathered(t, registry)
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() {
				if err := visit(1000+n*count/4, 1000+(n+1)*count/4); err != nil {
					t.Error(name, err)
				}
			})
		}
		all.Wait()
		grown := heap() - before
		t.Logf("%s: after %d hosts the heap has grown by %d KiB", name, count, grown>>10)
		if grown > 2<<20 {
			t.Error("that is too much")
		}
		if now := gathered(t, registry); now != series {
			t.Errorf("%s: %d series, before %d", name, now, series)
		}
	}
	if n := log.count.Load(); n > 20 {
		t.Errorf("%d lines in the log", n)
	}
}

// lines counts the lines of a log.
type lines struct{ count atomic.Int64 }

func (l *lines) Write(p []byte) (int, error) {
	l.count.Add(1)
	return len(p), nil
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func gathered(t *testing.T, from prometheus.Gatherer) (series int) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		series += len(family.GetMetric())
	}
	return series
}

func stranger(n int) string { return fmt.Sprintf("host%06d.example.test", n) }

// requests asks for hosts over one connection, a hundred at a time.
func requests(addr string, from, to int) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for n := from; n < to; n += 100 {
		var all bytes.Buffer
		for host := n; host < n+100; host++ {
			fmt.Fprintf(&all, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", stranger(host))
		}
		if _, err := conn.Write(all.Bytes()); err != nil {
			return err
		}
		for range 100 {
			answer, err := http.ReadResponse(in, nil)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, answer.Body)
			if err != nil || answer.StatusCode != http.StatusNotFound {
				return fmt.Errorf("%s, %w", answer.Status, err)
			}
		}
	}
	return nil
}

// handshakes sends a first TLS message for each host, and wants an alert.
func handshakes(addr string, from, to int) error {
	hello := firstMessage(stranger(0))
	at := bytes.Index(hello, []byte(stranger(0)))
	for n := from; n < to; n++ {
		copy(hello[at:], stranger(n))
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
		_ = conn.(*net.TCPConn).SetLinger(0) // so that its port is free again at once
		_, err = conn.Write(hello)
		alert := make([]byte, 7)
		if err == nil {
			_, err = io.ReadFull(conn, alert)
		}
		_ = conn.Close()
		if err != nil || alert[0] != 0x15 || alert[6] != 112 {
			return fmt.Errorf("the answer is %x (%w), want the alert unrecognized_name", alert, err)
		}
	}
	return nil
}

// firstMessage returns what a TLS client sends first.
func firstMessage(host string) []byte {
	var sent recordedConn
	_ = tls.Client(&sent, &tls.Config{ServerName: host}).Handshake() // it ends at once, without an answer
	return sent.written
}

type recordedConn struct {
	net.Conn
	written []byte
}

func (c *recordedConn) Write(p []byte) (int, error) {
	c.written = append(c.written, p...)
	return len(p), nil
}
func (c *recordedConn) Read([]byte) (int, error) { return 0, errors.New("there is no answer") }
func (c *recordedConn) Close() error             { return nil }

// TestChallengePaths: only the exact path of a known token of the host gets an answer, over plain HTTP.
func TestChallengePaths(t *testing.T) {
	ip, port := service(t, seen)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip)})
	plain := publicRoute("plain.test", "", port)
	plain.Tls.Mode = api.TLSOff
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{publicRoute("a.b", "", port), plain}})
	f.ApplyCredentials(&carav1.Credentials{
		Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.b")},
		Challenges: []*carav1.Challenge{{Host: "a.b", Token: "tok-1", KeyAuthorization: "the answer"}, {Host: "plain.test", Token: "tok-2", KeyAuthorization: "the answer"}},
	})
	const at = challengePath
	for target, status := range map[string]int{
		at + "tok-1": 200, at + "tok-1?x=y": 200, "http://a.b" + at + "tok-1": 200,
		at + "../x": 308, at + "../acme-challenge/tok-1": 308, at + "%2e%2e/acme-challenge/tok-1": 308, "/.well-known/x/../acme-challenge/tok-1": 308,
		at + "/tok-1": 308, "/" + at + "tok-1": 308, at + "tok%2d1": 308, at + "tok-1/": 308, at + "tok-1%00": 308, at + "TOK-1": 308, at + "tok-2": 308,
		at: 308, at + "tok": 308, at + "tok-10": 308, at + strings.Repeat("a", 20_000): 308, strings.TrimSuffix(at, "/"): 308, "/.WELL-KNOWN/acme-challenge/tok-1": 308,
		at + "tok-1#x": 308, at + "tok-1;x": 308, at + `..\tok-1`: 308,
	} {
		got, body, location := sendTo(t, f.http, "GET", "a.b", target)
		if got != status || (got == 200) != (body == "the answer") || got == 308 && !strings.HasPrefix(location, "https://a.b/") {
			t.Errorf("%.60s: %d %.60q to %.60q, want %d", target, got, body, location, status)
		}
	}
	if got, _, _ := sendTo(t, f.http, "GET", "a.b", at+strings.Repeat("a", 100_000)); got != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a token of 100,000 bytes: %d", got)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "get"} {
		if got, body, _ := sendTo(t, f.http, method, "a.b", at+"tok-1"); got != 308 || strings.Contains(body, "the answer") {
			t.Errorf("%s: %d %q", method, got, body)
		}
	}
	for _, host := range []string{"nobody.test", "b", "xa.b", "a.b.c"} {
		if got, body, _ := sendTo(t, f.http, "GET", host, at+"tok-1"); got == 200 || strings.Contains(body, "the answer") {
			t.Errorf("at %s: %d %q", host, got, body)
		}
	}
	if _, body := fetch(t, f.client(t, false), "https://a.b"+at+"tok-1"); !strings.Contains(body, "uri="+at+"tok-1") {
		t.Errorf("over HTTPS the service gets the request, not %q", body)
	}
	if _, body, _ := sendTo(t, f.internal, "GET", "a.b", at+"tok-1"); !strings.Contains(body, "uri="+at+"tok-1") {
		t.Errorf("inside the service gets the request, not %q", body)
	}
	if _, body, _ := sendTo(t, f.http, "GET", "plain.test", at+"../x"); !strings.Contains(body, "uri="+at+"../x") {
		t.Errorf("without HTTPS the service gets the request, not %q", body)
	}
}
