package ingress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// movingProject is a cluster of two agents. The project of the host a.b leaves n1, and then runs on n2.
type movingProject struct {
	*testing.T
	first, second *Ingress
	entry         string // the address of n1
	address       string // of n2, for n1
	port          int32
	here, up      atomic.Bool  // n1 and n2 have the service
	asked, seen   atomic.Int32 // how often n2 has looked for the service, and how often that got a request
}

func newMoving(t *testing.T, hold time.Duration, answer http.HandlerFunc) *movingProject {
	t.Helper()
	m := &movingProject{T: t}
	var ip string
	ip, m.port = service(t, func(w http.ResponseWriter, r *http.Request) {
		m.seen.Add(1)
		answer(w, r)
	})
	nodes := cluster(t)
	m.first, m.entry = serving(t, Config{Node: "n1", Peers: nodes("n1"), Limits: Limits{Hold: hold}, Endpoint: func(string, string) (string, func(), bool) {
		return ip, func() {}, m.here.Load()
	}})
	m.second, m.address = serving(t, Config{Node: "n2", Peers: nodes("n2"), Endpoint: func(string, string) (string, func(), bool) {
		m.asked.Add(1)
		return ip, func() {}, m.up.Load()
	}})
	m.at("n1")
	return m
}

// at is what the server tells when the project is on a node, or on none.
func (m *movingProject) at(node string, allow ...string) {
	r := &carav1.Route{Host: "a.b", Project: "p", Service: "w", Port: m.port, Node: node, Allow: allow}
	if node == "n2" {
		r.IngressAddress = m.address
	}
	m.first.Apply(&carav1.Routes{Upserts: []*carav1.Route{r}})
	m.second.Apply(&carav1.Routes{Upserts: []*carav1.Route{r}})
}

// send returns the answer to a request with a body.
func (m *movingProject) send(body string) (status int, text string, header http.Header, err error) {
	method := http.MethodPost
	var from io.Reader = strings.NewReader(body)
	if body == "" {
		method, from = http.MethodGet, nil
	}
	req, err := http.NewRequestWithContext(m.Context(), method, "http://"+m.entry+"/", from)
	if err != nil {
		return 0, "", nil, err
	}
	req.Host = "a.b"
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(got), resp.Header, err
}

// waits returns when some requests wait.
func (m *movingProject) waits(n int64) {
	m.Helper()
	deadline := time.After(2 * time.Minute)
	for m.first.waiting.Load() != n {
		select {
		case <-deadline:
			m.Fatalf("%d requests wait, want %d", m.first.waiting.Load(), n)
		case <-time.After(time.Millisecond):
		}
	}
}

// count returns how many requests to a node are watched.
func (p *peerWatch) count(node string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.nodes[node]; n != nil {
		return n.requests
	}
	return 0
}

func echoBody(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s", r.Method, body)
}

// TestRequestsWaitForAMove: a request that comes while its project moves is answered by the new container, which gets it once.
func TestRequestsWaitForAMove(t *testing.T) {
	var m *movingProject
	m = newMoving(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if kept := m.first.recorded.Load(); kept < int64(len(body)) {
			t.Errorf("%d bytes are counted while a body of %d is kept", kept, len(body))
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		echoBody(w, r)
	})
	m.at("")
	bodies := []string{"", "small", strings.Repeat("x", maxRecorded/2)}
	var all errgroup.Group
	for _, body := range bodies {
		all.Go(func() error {
			status, text, _, err := m.send(body)
			if want := strings.TrimSpace("POST " + body); body != "" && (status != 200 || text != want) || body == "" && text != "GET " {
				return errors.Join(err, fmt.Errorf("got %d %.40q", status, text))
			}
			return err
		})
	}
	m.waits(3)
	m.at("n2")
	m.at("n2") // a change of something else
	for deadline := time.After(2 * time.Minute); m.asked.Load() < 12; {
		select {
		case <-deadline:
			t.Fatal("n2 is not asked again") // it is not ready yet, and says so
		case <-time.After(time.Millisecond):
		}
	}
	for deadline := time.After(30 * time.Second); m.first.peerWatch.count("n2") > 3; { // sooner than the requests end
		select {
		case <-deadline:
			t.Fatalf("%d attempts of 3 requests are watched", m.first.peerWatch.count("n2"))
		case <-time.After(time.Millisecond):
		}
	}
	if seen := m.seen.Load(); seen != 0 {
		t.Errorf("%d requests have arrived", seen)
	}
	m.up.Store(true)
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if seen := m.seen.Load(); seen != 3 {
		t.Errorf("the service got %d requests, want 3", seen)
	}
	m.waits(0)
	if kept := m.first.recorded.Load(); kept != 0 {
		t.Errorf("%d bytes are kept after the end", kept)
	}
}

// TestAWaitHasAnEnd: a request does not wait longer than Hold, and none waits if nothing has moved.
func TestAWaitHasAnEnd(t *testing.T) {
	m := newMoving(t, 50*time.Millisecond, echoBody)
	for _, node := range []string{"n1", "", "n2"} {
		if node != "n1" {
			m.at(node)
		}
		if status, text, _, err := m.send(""); err != nil || status != 503 {
			t.Errorf("at node %q: %d %q, %v", node, status, text, err)
		}
	}
	if m.seen.Load() != 0 {
		t.Error("the service got a request")
	}
}

// TestAWaitNoticesOtherRules: a request that waits does not get through a rule that its client cannot use any more.
func TestAWaitNoticesOtherRules(t *testing.T) {
	m := newMoving(t, time.Minute, echoBody)
	m.up.Store(true)
	m.at("")
	var all errgroup.Group
	all.Go(func() error {
		if status, text, _, err := m.send("x"); err != nil || status != 503 {
			return errors.Join(err, fmt.Errorf("got %d %q", status, text))
		}
		return nil
	})
	m.waits(1)
	m.at("n2", "192.0.2.0/24")
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if m.seen.Load() != 0 {
		t.Error("the service got the request")
	}
}

// TestAServiceCannotSayNotSent: only an agent can say that a request was not sent. Otherwise a service could get it twice.
func TestAServiceCannotSayNotSent(t *testing.T) {
	m := newMoving(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerNotSent, "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	m.up.Store(true)
	for n, node := range []string{"n2", "n1"} {
		m.at(node)
		m.here.Store(node == "n1")
		status, _, header, err := m.send("")
		if err != nil || status != 503 || header.Get(headerNotSent) != "" || m.seen.Load() != int32(n+1) {
			t.Errorf("on %s: %d with %v after %d requests, %v", node, status, header, m.seen.Load(), err)
		}
	}
}

// TestPatience: only the agent that the client connects to waits, and only for a service that has moved or was there just now.
func TestPatience(t *testing.T) {
	i := New(Config{Limits: Limits{Hold: time.Hour}, Logger: slog.New(slog.DiscardHandler)})
	now := time.Now()
	for name, c := range map[string]struct {
		via    string
		moved  time.Duration // before now; 0: never
		served time.Duration
		begun  time.Duration
		waits  bool
	}{
		"moved just now":                 {"", time.Second, 0, 0, true},
		"moved, at the second agent":     {"n1", time.Second, 0, 0, false},
		"moved, after a long wait":       {"", time.Second, 0, 2 * time.Hour, false},
		"moved long ago":                 {"", time.Hour, 0, 0, false},
		"never seen":                     {"", 0, 0, 0, false},
		"there just now":                 {"", 0, 5 * time.Second, 0, true},
		"there, at the second agent":     {"n1", 0, 5 * time.Second, 0, false},
		"there, after a wait":            {"", 0, 5 * time.Second, time.Minute, false},
		"there long ago":                 {"", 0, time.Hour, 0, false},
		"moved long ago, there just now": {"", time.Hour, 5 * time.Second, 0, true},
	} {
		r := &rule{served: &usage{}}
		if c.moved != 0 {
			r.moved = now.Add(-c.moved)
		}
		if c.served != 0 {
			r.served.at.Store(now.Add(-c.served).Unix())
		}
		x := &exchange{via: c.via, begun: time.Now().Add(-c.begun)}
		if left := (sender{i}).patience(x, r); (left > 0) != c.waits {
			t.Errorf("%s: it waits for %s", name, left)
		}
	}
}

// TestNotAllWait: when many requests wait, others are answered at once.
func TestNotAllWait(t *testing.T) {
	m := newMoving(t, time.Hour, echoBody)
	m.at("")
	m.first.waiting.Store(maxWaiting)
	if status, text, _, err := m.send("x"); err != nil || status != 503 {
		t.Errorf("got %d %q, %v", status, text, err)
	}
	m.waits(maxWaiting)
}

// TestEachAttemptEndsItsHold: a container that did not accept the connection is not held after that, or it could never stop.
func TestEachAttemptEndsItsHold(t *testing.T) {
	ip, port := service(t, echoBody)
	var held, attempts atomic.Int32
	i, addr := serving(t, Config{Node: "n1", Limits: Limits{Hold: time.Minute}, Endpoint: func(string, string) (string, func(), bool) {
		if held.Add(1) > 1 {
			t.Error("an attempt begins before the one before has ended its hold")
		}
		at := "127.0.0.2" // where nobody listens
		if attempts.Add(1) > 3 {
			at = ip
		}
		return at, sync.OnceFunc(func() { held.Add(-1) }), true
	}})
	for _, node := range []string{"n2", "n1"} {
		i.Apply(&carav1.Routes{Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: port, Node: node}}})
	}
	m := &movingProject{T: t, first: i, entry: addr}
	if status, text, _, err := m.send(""); err != nil || status != 200 {
		t.Errorf("got %d %q, %v", status, text, err)
	}
	if n := attempts.Load(); n != 4 {
		t.Errorf("%d attempts, want 4", n)
	}
}

// TestABodyThatWasNotKeptIsNotSentAgain: that of a request to a service on this node, which usually accepts connections.
func TestABodyThatWasNotKeptIsNotSentAgain(t *testing.T) {
	var attempts atomic.Int32
	i, addr := serving(t, Config{Node: "n1", Limits: Limits{Hold: time.Second}, Endpoint: func(string, string) (string, func(), bool) {
		attempts.Add(1)
		return "127.0.0.2", func() {}, true
	}})
	for _, node := range []string{"n2", "n1"} {
		i.Apply(&carav1.Routes{Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: 9, Node: node}}})
	}
	m := &movingProject{T: t, first: i, entry: addr}
	if status, text, _, err := m.send("x"); err != nil || status != 502 || attempts.Load() != 1 {
		t.Errorf("got %d %q after %d attempts, %v", status, text, attempts.Load(), err)
	}
}

// TestAClosedBody: a transport that closes a body before it reads it leaves it for the next attempt; later, its rest is lost.
func TestAClosedBody(t *testing.T) {
	var all atomic.Int64
	stopped := false
	rec := &recording{body: strings.NewReader("body"), all: &all, stop: func() error {
		stopped = true
		return nil
	}}
	unread := &recorded{from: rec}
	if err := unread.Close(); err != nil || rec.gone() || stopped {
		t.Errorf("it is gone before it was read: %v", err)
	}
	if _, err := unread.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := unread.Close(); err != nil || !rec.gone() || !stopped || all.Load() != 0 {
		t.Errorf("it is not gone, although its rest is: %v", err)
	}
}

// TestAServiceDoesNotLearnTheScope: also if the attempt before went to another agent, which must.
func TestAServiceDoesNotLearnTheScope(t *testing.T) {
	h, x := http.Header{}, &exchange{public: true}
	claimScope(h, x, true)
	if h.Get(headerScope) == "" {
		t.Error("the other agent does not learn it")
	}
	claimScope(h, x, false)
	if h.Get(headerScope) != "" {
		t.Error("the service learns it")
	}
}

// TestALongRequestIsRecent: a service that has just answered a request was there a moment ago, however long that took.
func TestALongRequestIsRecent(t *testing.T) {
	m := newMoving(t, time.Minute, echoBody)
	m.here.Store(true)
	rule := m.first.table.Load().hosts["a.b"][0]
	x := &exchange{begun: time.Now().Add(-time.Hour), backend: &backend{rule: rule}}
	ctx := context.WithValue(t.Context(), exchangeKey{}, x)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://a.b/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := sender{m.first}.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if left := (sender{m.first}).patience(&exchange{begun: time.Now()}, rule); left <= 0 {
		t.Error("a request that comes now does not wait for the service")
	}
}

// untilRead is a ResponseWriter whose request has a deadline.
type untilRead struct {
	http.ResponseWriter
	deadline time.Time
}

func (u *untilRead) SetReadDeadline(t time.Time) error {
	u.deadline = t
	return nil
}

// TestTheBodyOfAnUnsentRequestIsTaken: up to what can be sent again, and only for a moment. Otherwise the stream of the other agent
// would break off, and it could not send the request again.
func TestTheBodyOfAnUnsentRequestIsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		via        string
		size, left int
	}{
		"of another agent": {"n1", maxRecorded, 0},
		"a large one":      {"n1", maxRecorded + 100, 99},
		"of a client":      {"", 100, 100},
	} {
		body := strings.NewReader(strings.Repeat("x", c.size))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://a.b/", body)
		if err != nil {
			t.Fatal(err)
		}
		w := &untilRead{ResponseWriter: httptest.NewRecorder()}
		x := &exchange{ResponseWriter: w, request: r, via: c.via}
		x.notSent()
		if body.Len() != c.left || w.deadline.IsZero() != (c.via == "") || (w.Header().Get(headerNotSent) == "") != (c.via == "") {
			t.Errorf("%s: %d bytes are left, deadline %v, header %v", name, body.Len(), w.deadline, w.Header())
		}
	}
}
