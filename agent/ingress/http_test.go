package ingress

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestUploadIsNotKept: an upload passes through two agents without being buffered in memory.
func TestUploadIsNotKept(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 256 MiB")
	}
	const size = 256 << 20
	var most atomic.Uint64
	addr := hops(t, func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 1<<20)
		total := 0
		for {
			n, err := io.ReadFull(r.Body, buf)
			total += n
			if total%(16<<20) == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most.Store(max(most.Load(), m.HeapAlloc))
			}
			if err != nil {
				break
			}
		}
		fmt.Fprint(w, total)
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+addr+"/", io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Close = "a.b", true
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != fmt.Sprint(size) {
		t.Errorf("the service got %s bytes (%v), want %d", text, err, size)
	}
	if most.Load() > 64<<20 {
		t.Errorf("%d MiB in memory while 256 MiB passed", most.Load()>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestExpectContinue: a service can reject a body before it is sent, across two agents.
func TestExpectContinue(t *testing.T) {
	addr := hops(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		text, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "got %s", text)
	})
	for path, want := range map[string]int{"/yes": http.StatusContinue, "/no": http.StatusRequestEntityTooLarge} {
		c := raw(t, addr, "PUT "+path+" HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%s: got %v (%v), want %d before the body is sent", path, resp, err, want)
		}
		if want != http.StatusContinue {
			continue
		}
		fmt.Fprint(c, "hello")
		if resp, err = http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "got hello" {
			t.Errorf("got %q (%v), want the body at the service", text, err)
		}
	}
}

// Headers about the client in trailers do not reach the service, announced or not, also across two agents.
func TestClaimsInTrailersAreDropped(t *testing.T) {
	names := func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, slices.Sorted(maps.Keys(r.Trailer)), err)
	}
	_, direct := one(t, Config{}, names)
	for name, addr := range map[string]string{"one agent": direct, "two agents": hops(t, names)} {
		for _, announced := range []string{"X-Digest", "X-Digest, X-Forwarded-For, Forwarded"} {
			c := raw(t, addr, "POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\nTrailer: "+announced+"\r\n\r\n5\r\nhello\r\n0\r\n"+
				"X-Digest: abc\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Cara-Via: n9\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if closed := resp.Body.Close(); err != nil || closed != nil || string(text) != "[X-Digest] <nil>" {
				t.Errorf("%s, announced %s: the service has the trailers %s (%v), want X-Digest alone", name, announced, text, err)
			}
		}
	}
}

// TestTrailers pass both ways, across two agents.
func TestTrailers(t *testing.T) {
	addr := hops(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s, sum %s", text, r.Trailer.Get("X-Digest"))
		w.Header().Set("X-Sum", "42")
	})
	c := raw(t, addr, "POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\nTrailer: X-Digest\r\n\r\n5\r\nhello\r\n0\r\nX-Digest: abc\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != "hello, sum abc" || resp.Trailer.Get("X-Sum") != "42" {
		t.Errorf("got %q, trailer %v (%v): want both trailers", text, resp.Trailer, err)
	}
}

// TestRequests sends valid and invalid requests.
func TestRequests(t *testing.T) {
	_, addr := one(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s length=%d encoding=%v", r.Method, r.URL, r.ContentLength, r.TransferEncoding))
		fmt.Fprintf(w, "%s", text)
	})
	tests := map[string]struct {
		request string
		status  int
		seen    string // by the service
		body    string
		closed  bool // after the answer
	}{
		"GET":              {"GET /x?y=z HTTP/1.1\r\nHost: a.b\r\n\r\n", 200, "GET /x?y=z length=0 encoding=[]", "", false},
		"HEAD":             {"HEAD /x HTTP/1.1\r\nHost: a.b\r\n\r\n", 200, "HEAD /x length=0 encoding=[]", "", false},
		"OPTIONS":          {"OPTIONS /x HTTP/1.1\r\nHost: a.b\r\n\r\n", 200, "OPTIONS /x length=0 encoding=[]", "", false},
		"chunked":          {"POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, "POST / length=-1 encoding=[chunked]", "hello", false},
		"of known length":  {"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhello", 200, "POST / length=5 encoding=[]", "hello", false},
		"an own method":    {"PURGE /x HTTP/1.1\r\nHost: a.b\r\n\r\n", 200, "PURGE /x length=0 encoding=[]", "", false},
		"Connection close": {"GET / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n", 200, "GET / length=0 encoding=[]", "", true},
		"HTTP/1.0":         {"GET / HTTP/1.0\r\nHost: a.b\r\n\r\n", 200, "GET / length=0 encoding=[]", "", true},
		"absolute form":    {"GET http://a.b/x HTTP/1.1\r\nHost: other\r\n\r\n", 200, "GET /x length=0 encoding=[]", "", false},
		"escaped path":     {"GET /a%2Fb//c HTTP/1.1\r\nHost: a.b\r\n\r\n", 200, "GET /a%2Fb//c length=0 encoding=[]", "", false},

		"HTTP/1.0 without host":     {"GET / HTTP/1.0\r\n\r\n", 400, "", "names no host", true},
		"without host":              {"GET / HTTP/1.1\r\n\r\n", 400, "", "Host", true},
		"two hosts":                 {"GET / HTTP/1.1\r\nHost: a.b\r\nHost: c.d\r\n\r\n", 400, "", "", true},
		"a host that is none":       {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "", "Host", true},
		"a proxy's request":         {"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n", 405, "", "no proxy", false},
		"a header too large":        {"GET / HTTP/1.1\r\nHost: a.b\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 431, "", "431", true},
		"two lengths":               {"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, "", "", true},
		"a length that is none":     {"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: +5\r\n\r\nhello", 400, "", "", true},
		"an unknown encoding":       {"POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "", "", true},
		"an encoding twice":         {"POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, "", "", true},
		"space before the colon":    {"GET / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding : chunked\r\n\r\n", 400, "", "", true},
		"a folded header":           {"GET / HTTP/1.1\r\nHost: a.b\r\n X: y\r\n\r\n", 400, "", "", true},
		"length beside an encoding": {"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, "POST / length=-1 encoding=[chunked]", "hello", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := raw(t, addr, tt.request)
			r := bufio.NewReader(c)
			method, _, _ := strings.Cut(tt.request, " ")
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.status || resp.Header.Get("X-Seen") != tt.seen || !strings.Contains(string(body), tt.body) {
				t.Fatalf("got %d, seen %q, %q (%v)\nwant %d, seen %q, %q", resp.StatusCode, resp.Header.Get("X-Seen"), body, err, tt.status, tt.seen, tt.body)
			}
			if tt.closed {
				if _, err := r.ReadByte(); err != io.EOF {
					t.Errorf("the connection goes on (%v)", err)
				}
				return
			}
			fmt.Fprint(c, "GET /next HTTP/1.1\r\nHost: a.b\r\n\r\n")
			if resp, err := http.ReadResponse(r, nil); err != nil || resp.Header.Get("X-Seen") != "GET /next length=0 encoding=[]" {
				t.Errorf("the next request on the connection: %v (%v)", resp, err)
			}
		})
	}
}

// TestHeadersOfOneHop: hop-by-hop headers are removed, and no header about the client reaches the service in any spelling,
// through one agent and through two.
func TestHeadersOfOneHop(t *testing.T) {
	var seen http.Header
	shows := func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		w.Header().Set("Connection", "X-Inner")
		w.Header().Set("X-Inner", "secret")
		w.Header().Set("Keep-Alive", "timeout=1")
		w.Header().Set("X-Outer", "shown")
	}
	_, addr := one(t, Config{}, shows)
	for name, to := range map[string]string{"one agent": addr, "across agents": hops(t, shows)} {
		t.Run(name, func(t *testing.T) {
			c := raw(t, to, "GET / HTTP/1.1\r\nHost: a.b\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\n"+
				"Proxy-Authorization: x\r\nUpgrade: h2c\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n"+
				"X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_For: 6.6.6.6\r\nx.forwarded.for: 6.6.6.6\r\nX_Forwarded_Proto: https\r\nX_REAL_IP: 6.6.6.6\r\n"+
				"X-Forwarded-Port: 443\r\nX-Forwarded-User: root\r\nTrue-Client-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\n"+
				"X-Real-IP: 6.6.6.6\r\nX-Cara-Ingress-Hop: n9\r\nX_Cara_Ingress_Hop: n9\r\nX-Kept: yes\r\nX_Kept_Too: yes\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			want := http.Header{
				"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"a.b"}, "X-Forwarded-Proto": {"http"}, "X-Kept": {"yes"}, "X_kept_too": {"yes"},
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("the service's headers differ (-want +got):\n%s", diff)
			}
			if resp.Header.Get("X-Inner")+resp.Header.Get("Keep-Alive") != "" || resp.Header.Get("X-Outer") != "shown" {
				t.Errorf("the client got %v", resp.Header)
			}
		})
	}
}

// TestAHalfClosedClient: without a response, no status is sent and the connection is closed.
func TestAHalfClosedClient(t *testing.T) {
	late := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done() // it answers when its own client is gone
	}
	_, addr := one(t, Config{}, late)
	for name, to := range map[string]string{"one agent": addr, "across agents": hops(t, late)} {
		for what, request := range map[string]string{
			"GET":  "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n",
			"POST": "POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhello",
		} {
			c := raw(t, to, request)
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(c); len(answer) > 0 {
				t.Errorf("%s, %s: got %q (%v), want no answer", name, what, answer, err)
			}
		}
	}
}

// TestPartsPassAsTheyCome: a client receives the parts of a response immediately, even if more was announced.
func TestPartsPassAsTheyCome(t *testing.T) {
	more := make(chan struct{})
	_, addr := one(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "first")
		w.(http.Flusher).Flush()
		select {
		case <-more:
			fmt.Fprint(w, "later")
		case <-time.After(30 * time.Second):
		}
	})
	resp, err := http.ReadResponse(bufio.NewReader(raw(t, addr, "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, part); err != nil || string(part) != "first" {
		t.Fatalf("got %q (%v)", part, err)
	}
	close(more)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "later" {
		t.Errorf("then %q (%v)", rest, err)
	}
}

// TestPages are plain text for people and problems for programs.
func TestPages(t *testing.T) {
	_, addr := agent(t, "n1", down)
	for accept, want := range map[string]string{
		"":                            "404 Not Found\n\nNo project claims the host \"x.y\".\n",
		"text/html, application/json": "404 Not Found\n\nNo project claims the host \"x.y\".\n",
		"application/json":            `{"detail":"No project claims the host \"x.y\".","status":404,"title":"Not Found"}` + "\n",
	} {
		if status, body := get(t, addr, "x.y", http.Header{"Accept": {accept}}); status != 404 || body != want {
			t.Errorf("Accept %q: got %d %q, want 404 %q", accept, status, body, want)
		}
	}
}
