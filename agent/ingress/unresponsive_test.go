package ingress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// stoppable passes connections on to an agent, until it is as silent as one whose process is stopped: the kernel still accepts.
type stoppable struct{ stopped atomic.Bool }

func newStoppable(t *testing.T, to string) (*stoppable, string) {
	t.Helper()
	s := &stoppable{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	pass := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if s.stopped.Load() {
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			go pass(far, c)
			go pass(c, far)
		}
	}()
	return s, l.Addr().String()
}

// TestStoppedAgent: a request to a node whose agent is stopped ends, before its answer has begun, after that, and after an upgrade. One
// whose agent works lasts as long as its service takes.
func TestStoppedAgent(t *testing.T) {
	gate := make(chan struct{})
	ip, port := service(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/upgraded":
			echoUpgrade(w, r)
			return
		case "/begun":
			fmt.Fprintln(w, "first")
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-gate:
			fmt.Fprint(w, "last")
		case <-r.Context().Done():
		}
	})
	nodes := cluster(t)
	// A machine that is busy needs more than a moment for a connection to an agent that works.
	limits := Limits{Check: 20 * time.Millisecond, Dial: 3 * time.Second}
	second, behind := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2")})
	between, address := newStoppable(t, behind)
	first, addr := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1"), Limits: limits})
	for _, i := range []*Ingress{first, second} {
		i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: address}}})
	}
	type answer struct {
		resp *http.Response
		err  error
	}
	ask := func(path string) <-chan answer {
		got := make(chan answer, 1)
		go func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
			if err != nil {
				got <- answer{nil, err}
				return
			}
			r.Host = "a.b"
			resp, err := http.DefaultClient.Do(r)
			got <- answer{resp, err}
		}()
		return got
	}
	slow := ask("/begun")
	begun := <-slow
	if begun.err != nil {
		t.Fatal(begun.err)
	}
	waiting := ask("/silent")
	upgraded := raw(t, addr, "GET /upgraded HTTP/1.1\r\nHost: a.b\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	if err := upgraded.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	echoes := bufio.NewReader(upgraded)
	if resp, err := http.ReadResponse(echoes, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	lines := bufio.NewReader(begun.resp.Body)
	if line, err := lines.ReadString('\n'); line != "first\n" {
		t.Fatalf("%q, %v", line, err)
	}
	select {
	case <-waiting:
		t.Fatal("an agent that works is given up")
	case <-time.After(10 * limits.Check):
	}
	fmt.Fprintln(upgraded, "hello")
	if line, err := echoes.ReadString('\n'); line != "echo hello\n" {
		t.Fatalf("%q, %v", line, err)
	}
	between.stopped.Store(true)
	var got answer
	select {
	case got = <-waiting:
	case <-time.After(2 * time.Minute):
		t.Fatal("the request still waits")
	}
	if got.err != nil {
		t.Fatal(got.err)
	}
	text, _ := io.ReadAll(got.resp.Body)
	_ = got.resp.Body.Close()
	if got.resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(text), `node "n2", whose agent does not answer any more`) {
		t.Errorf("%s %q", got.resp.Status, text)
	}
	if rest, err := io.ReadAll(lines); err == nil {
		t.Errorf("an answer that is cut off ends as if it were whole: %q", rest)
	}
	if rest, err := io.ReadAll(echoes); len(rest) != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an upgraded connection stays open: %q, %v", rest, err)
	}
	_ = begun.resp.Body.Close()
	close(gate)
}

// overslow is the error of a connection that takes too long.
type overslow struct{ error }

func (overslow) Timeout() bool   { return true }
func (overslow) Temporary() bool { return true }

// TestPeerWatch: only connections in a row that take too long show that an agent does not answer.
func TestPeerWatch(t *testing.T) {
	slow, other := overslow{errors.New("slow")}, errors.New("its address is not known")
	for name, c := range map[string]struct {
		dials []error // the last one repeats
		lost  bool
	}{
		"works":          {[]error{nil}, false},
		"stopped":        {[]error{slow}, true},
		"slow sometimes": {[]error{slow, nil, slow, nil}, false},
		"not known":      {[]error{other}, false},
		"stopped later":  {[]error{nil, other, nil, slow}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				p := newPeerWatch(time.Second, func(context.Context, string, ...string) (net.Conn, error) {
					err := c.dials[min(n, len(c.dials)-1)]
					n++
					near, far := net.Pipe()
					_ = far.Close()
					return near, err
				})
				ctx, end := context.WithTimeout(t.Context(), time.Minute)
				defer end()
				watched, _ := p.watch(ctx, "n2")
				<-watched.Done()
				synctest.Wait()
				if _, lost := errors.AsType[*unresponsive](context.Cause(watched)); lost != c.lost {
					t.Errorf("lost is %t after %d connections", lost, n)
				}
				watched, unwatch := p.watch(t.Context(), "n2")
				unwatch()
				synctest.Wait()
				before := n
				<-time.After(time.Minute)
				if n != before || watched.Err() == nil || len(p.nodes) != 0 {
					t.Error("a request that has failed is still watched")
				}
			})
		})
	}
}

// TestRequestsShareChecks: many requests to a node cause no more connections than one. They are given up together, also if those that came
// first have left during a check. Requests that come after that are watched, too.
func TestRequestsShareChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		var stopped atomic.Bool
		p := newPeerWatch(10*time.Second, func(ctx context.Context, _ string, _ ...string) (net.Conn, error) {
			dials.Add(1)
			if stopped.Load() {
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(5 * time.Second):
					return nil, overslow{errors.New("slow")}
				}
			}
			near, far := net.Pipe()
			_ = far.Close()
			return near, nil
		})
		first, leave := context.WithCancel(t.Context())
		defer leave()
		_, _ = p.watch(first, "n2")
		var all []context.Context
		for range 1000 {
			<-time.After(99 * time.Millisecond)
			watched, _ := p.watch(t.Context(), "n2")
			all = append(all, watched)
		}
		if n := dials.Load(); n != 9 { // in 99 seconds
			t.Errorf("%d connections", n)
		}
		stopped.Store(true)
		<-time.After(3 * time.Second) // a check has begun
		leave()
		<-time.After(20 * time.Second)
		synctest.Wait()
		for _, watched := range all {
			if _, lost := errors.AsType[*unresponsive](context.Cause(watched)); !lost {
				t.Fatalf("after %d connections: %v", dials.Load(), context.Cause(watched))
			}
		}
		later, _ := p.watch(t.Context(), "n2")
		<-later.Done()
		synctest.Wait()
		if n := dials.Load(); n != 13 || len(p.nodes) != 0 {
			t.Errorf("%d connections, %d nodes are kept", n, len(p.nodes))
		}
	})
}

// TestARequestAfterTheEnd: a request that comes while those before it are given up is not given up with them.
func TestARequestAfterTheEnd(t *testing.T) {
	p := newPeerWatch(time.Hour, nil)
	before := p.enter("n2")
	before.end(&unresponsive{"n2"})
	after := p.enter("n2")
	p.leave("n2", before)
	if after.ctx.Err() != nil || p.count("n2") != 1 {
		t.Errorf("%v, %d requests are watched", after.ctx.Err(), p.count("n2"))
	}
	p.leave("n2", after)
}
