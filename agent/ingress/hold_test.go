package ingress

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestABackendIsHeldUntilItsRequestEnds: and not longer. An endless response holds nothing after its first byte.
func TestABackendIsHeldUntilItsRequestEnds(t *testing.T) {
	gate := make(chan struct{})
	ip, port := service(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			<-gate
			return
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		}
		fmt.Fprintln(w, "first")
		if err := http.NewResponseController(w).Flush(); err == nil {
			<-gate
		}
	})
	var held, asked atomic.Int32
	i, addr := agent(t, "n1", func(string, string) (string, func(), bool) {
		held.Add(1)
		asked.Add(1)
		return ip, sync.OnceFunc(func() { held.Add(-1) }), true
	})
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n1"}}})
	open := func(request string) net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, request)
		if _, err := io.ReadFull(conn, make([]byte, 16)); err != nil { // the answer has begun
			t.Fatal(err)
		}
		return conn
	}
	open("GET /ws HTTP/1.1\r\nHost: a.b\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	open("GET /events HTTP/1.1\r\nHost: a.b\r\n\r\n")
	if n := held.Load(); n != 0 {
		t.Errorf("%d holds while only streams are open", n)
	}
	plain := open("GET /plain HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n")
	if n := held.Load(); n != 1 {
		t.Errorf("%d holds while a request is answered, want 1", n)
	}
	close(gate)
	if rest, err := io.ReadAll(plain); err != nil || !strings.Contains(string(rest), "first") {
		t.Errorf("rest of the answer %q, %v", rest, err)
	}
	deadline := time.After(30 * time.Second)
	for held.Load() != 0 {
		select {
		case <-deadline:
			t.Fatalf("%d holds when all has ended", held.Load())
		case <-time.After(time.Millisecond):
		}
	}
	if asked.Load() != 3 {
		t.Errorf("asked for a backend %d times, want 3", asked.Load())
	}
}
