package ingress

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// arrivals records the requests that reach a service.
type arrivals struct {
	mu   sync.Mutex
	seen []string
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, fmt.Sprintf("%s %s %s %q %v", r.Method, r.Host, r.RequestURI, body, err != nil))
	fmt.Fprint(w, "served")
}

func (a *arrivals) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := a.seen
	a.seen = nil
	return seen
}

// TestHostileRequests: each request is either rejected, or the service sees one request that means what the ingress read. What
// follows an unclear request on its connection is never served.
func TestHostileRequests(t *testing.T) {
	const head = "Host: a.test\r\n"
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
	chunked := "POST / HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n"
	for name, tt := range map[string]struct {
		request string
		status  int      // of the first answer; 0: none
		served  []string // what the service sees
		closes  bool     // the connection ends after a clear request
	}{
		"plain":        {"GET /x HTTP/1.1\r\n" + head + "\r\n", 200, []string{`GET a.test /x "" false`}, false},
		"two in a row": {"GET /1 HTTP/1.1\r\n" + head + "\r\nGET /2 HTTP/1.1\r\n" + head + "\r\n", 200, []string{`GET a.test /1 "" false`, `GET a.test /2 "" false`}, false},
		// The encoding counts (RFC 9112, 6.3), and the service gets only that. What follows is a request like any other.
		"length and chunked":        {"POST / HTTP/1.1\r\n" + head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, []string{`POST a.test / "" false`}, false},
		"two lengths":               {"POST / HTTP/1.1\r\n" + head + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + smuggled, 400, nil, false},
		"a list of lengths":         {"POST / HTTP/1.1\r\n" + head + "Content-Length: 0, 44\r\n\r\n" + smuggled, 400, nil, false},
		"a negative length":         {"POST / HTTP/1.1\r\n" + head + "Content-Length: -1\r\n\r\n" + smuggled, 400, nil, false},
		"a length with a plus":      {"POST / HTTP/1.1\r\n" + head + "Content-Length: +5\r\n\r\nhello", 400, nil, false},
		"a hexadecimal length":      {"POST / HTTP/1.1\r\n" + head + "Content-Length: 0x5\r\n\r\nhello", 400, nil, false},
		"chunked twice":             {"POST / HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + smuggled, 501, nil, false},
		"two encodings":             {"POST / HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled, 501, nil, false},
		"an unknown encoding":       {"POST / HTTP/1.1\r\n" + head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled, 501, nil, false},
		"an encoding after a tab":   {"POST / HTTP/1.1\r\n" + head + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + smuggled, 400, nil, false},
		"a space before the colon":  {"POST / HTTP/1.1\r\n" + head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled, 400, nil, false},
		"a folded header":           {"GET / HTTP/1.1\r\n" + head + "X: 1\r\n Transfer-Encoding: chunked\r\n\r\n", 200, []string{`GET a.test / "" false`}, false},
		"a folded first header":     {"GET / HTTP/1.1\r\n Host: int.test\r\n" + head + "\r\n", 400, nil, false},
		"two hosts":                 {"GET / HTTP/1.1\r\n" + head + "Host: int.test\r\n\r\n", 400, nil, false},
		"no host":                   {"GET / HTTP/1.1\r\n\r\n", 400, nil, false},
		"a host with a space":       {"GET / HTTP/1.1\r\nHost: a.test int.test\r\n\r\n", 400, nil, false},
		"a host with a user":        {"GET / HTTP/1.1\r\nHost: int.test@a.test\r\n\r\n", 400, nil, false},
		"another host":              {"GET / HTTP/1.1\r\nHost: int.test\r\n\r\n", 421, nil, false},
		"the host with a port":      {"GET / HTTP/1.1\r\nHost: A.TEST.:443\r\n\r\n", 200, []string{`GET A.TEST.:443 / "" false`}, false},
		"an absolute URI":           {"GET http://a.test/x HTTP/1.1\r\nHost: int.test\r\n\r\n", 200, []string{`GET a.test /x "" false`}, false},
		"an absolute URI elsewhere": {"GET http://int.test/x HTTP/1.1\r\n" + head + "\r\n", 421, nil, false},
		"CONNECT":                   {"CONNECT a.test:80 HTTP/1.1\r\n" + head + "\r\n", 405, nil, false},
		"a bad chunk size":          {chunked + "zz\r\nhello\r\n0\r\n\r\n" + smuggled, 0, nil, false},
		"a negative chunk size":     {chunked + "-5\r\nhello\r\n0\r\n\r\n" + smuggled, 0, nil, false},
		"a huge chunk size":         {chunked + "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n" + smuggled, 0, nil, false},
		"a chunk without its end":   {chunked + "5\r\nhelloXX0\r\n\r\n" + smuggled, 0, nil, false},
		"a long chunk extension":    {chunked + "5;" + strings.Repeat("x", 1<<17) + "\r\nhello\r\n0\r\n\r\n" + smuggled, 0, nil, false},
		"HTTP/1.0 with chunks":      {"POST / HTTP/1.0\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 200, []string{`POST a.test / "" false`}, true},
		"HTTP/2 in plain text":      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, nil, false},
		"HTTP/0.9":                  {"GET /\r\n\r\n", 400, nil, false},
		"a bare line feed in a URL": {"GET /\n/x HTTP/1.1\r\n" + head + "\r\n", 400, nil, false},
		"a NUL in a header":         {"GET / HTTP/1.1\r\n" + head + "X: a\x00b\r\n\r\n", 400, nil, false},
		"a header of 100 KiB":       {"GET / HTTP/1.1\r\n" + head + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", 431, nil, false},
		"cookies of 100 KiB":        {"GET / HTTP/1.1\r\n" + head + strings.Repeat("Cookie: "+strings.Repeat("c", 1000)+"\r\n", 100) + "\r\n", 431, nil, false},
		"an upgrade with a body":    {"POST / HTTP/1.1\r\n" + head + "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi", 200, []string{`POST a.test / "hi" false`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var got arrivals
			s := httptest.NewServer(&got)
			at := netip.MustParseAddrPort(s.Listener.Addr().String())
			f := publicFront(t, Config{Node: "n1", Endpoint: up(at.Addr().String())})
			hidden := &carav1.Route{Host: "int.test", Project: "p", Service: "w", Port: int32(at.Port()), Node: "n1"}
			f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{publicRoute("a.test", "", int32(at.Port())), hidden}})
			f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.test")}})
			c, err := tls.Dial("tcp", f.https, &tls.Config{ServerName: "a.test", RootCAs: f.ca.Pool(), NextProtos: []string{"http/1.1"}})
			if err != nil {
				t.Fatal(err)
			}
			status := firstStatus(t, c, tt.request+"GET /end HTTP/1.1\r\n"+head+"Connection: close\r\n\r\n")
			if tt.status != 0 && status != tt.status || tt.status == 0 && status/100 == 2 {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			want := tt.served
			if !tt.closes && status == http.StatusOK || status == http.StatusMisdirectedRequest || status == http.StatusMethodNotAllowed {
				want = append(want, `GET a.test /end "" false`) // a clear request: the connection continues
			}
			s.Close() // waits for what is still on its way
			seen := got.take()
			if tt.status == 0 && len(seen) == 1 && strings.HasSuffix(seen[0], " true") {
				return // its header was clear and its body was not: the service knows that it is broken
			}
			if strings.Join(seen, "; ") != strings.Join(want, "; ") {
				t.Errorf("the service saw %q, want %q", seen, want)
			}
		})
	}
}

// firstStatus sends bytes and returns the status of the first answer, or 0, when the ingress has closed the connection.
func firstStatus(t *testing.T, c *tls.Conn, request string) int {
	t.Helper()
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil { // only ends a test that hangs
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, request) // the ingress may have closed the connection
	}()
	defer func() { <-sent }()
	r := bufio.NewReader(c)
	status := 0
	if resp, err := http.ReadResponse(r, nil); err == nil {
		status = resp.StatusCode
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	_, err := io.Copy(io.Discard, r)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		t.Error("the connection stays open")
	}
	return status
}

// TestSlowHandshakes end, and do not keep others out.
func TestSlowHandshakes(t *testing.T) {
	ip, port := service(t, seen)
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip), Limits: Limits{Header: 2 * time.Second, Connections: 50, ClientConnections: 50}})
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{publicRoute("a.test", "", port)}})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.test")}})
	var slow []net.Conn
	for range 60 {
		c, err := net.Dial("tcp", f.https)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{tlsRecord, 3, 1}); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	if resp, body := fetch(t, f.client(t, true), "https://a.test/"); resp.StatusCode != 200 {
		t.Errorf("beside slow handshakes: %d %q", resp.StatusCode, body)
	}
	for _, c := range slow {
		ends(t, "a slow handshake", c)
	}
}
