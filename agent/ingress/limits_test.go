package ingress

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// brief is a limit short enough to wait for. moving is a pace that stays within it, even on a loaded machine.
const (
	brief  = 500 * time.Millisecond
	moving = brief / 10
)

// TestABodyThatStandsStill: a body without progress ends the request. A slow one does not.
func TestABodyThatStandsStill(t *testing.T) {
	_, addr := one(t, Config{Limits: Limits{Stall: brief}}, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d bytes (%v)", len(text), err)
	})
	still := raw(t, addr, "POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 10\r\n\r\nhello")
	resp, err := http.ReadResponse(bufio.NewReader(still), nil)
	if err != nil || resp.StatusCode != http.StatusRequestTimeout {
		t.Fatalf("got %v (%v), want 408", resp, err)
	}
	slow := raw(t, addr, "POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 30\r\n\r\n")
	tick := time.NewTicker(moving)
	defer tick.Stop()
	for range 30 {
		<-tick.C
		fmt.Fprint(slow, "x")
	}
	if resp, err = http.ReadResponse(bufio.NewReader(slow), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("got %v (%v), want 200: it took three times the limit, but it moved", resp, err)
	}
}

// TestASlowHeader ends the connection.
func TestASlowHeader(t *testing.T) {
	_, addr := one(t, Config{Limits: Limits{Header: brief}}, func(http.ResponseWriter, *http.Request) {})
	c := raw(t, addr, "GET / HTTP/1.1\r\nHost: a.b\r\nX-")
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the connection did not end: %v", err)
	}
}

// TestAClientThatDoesNotRead loses its response, and the service is notified.
func TestAClientThatDoesNotRead(t *testing.T) {
	gone := make(chan struct{})
	_, addr := one(t, Config{Limits: Limits{Stall: brief}}, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	raw(t, addr, "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n")
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("the service still writes")
	}
}

// TestAServiceThatDoesNotTake: a service that does not read the request, or does not respond, times out.
func TestAServiceThatDoesNotTake(t *testing.T) {
	end := make(chan struct{})
	_, addr := one(t, Config{Limits: Limits{Stall: brief, Answer: brief}}, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	defer close(end)
	for name, request := range map[string]string{
		"no answer":   "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n",
		"not reading": "POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 100000000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := raw(t, addr, request)
			if name == "not reading" {
				go io.Copy(c, io.LimitReader(zeros{}, 100000000)) //nolint:errcheck // it is cut off
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("got %v (%v), want 504", resp, err)
			}
		})
	}
}

// TestASilentUpgrade: a WebSocket may be idle.
func TestASilentUpgrade(t *testing.T) {
	_, addr := one(t, Config{Limits: Limits{Stall: moving}}, echoUpgrade)
	c := raw(t, addr, "GET / HTTP/1.1\r\nHost: a.b\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v (%v), want 101", resp, err)
	}
	for range 2 {
		<-time.After(3 * moving)
		fmt.Fprint(c, "hello\n")
		if line, err := r.ReadString('\n'); err != nil || line != "echo hello\n" {
			t.Fatalf("got %q (%v) after a silence", line, err)
		}
	}
}

// echoUpgrade answers each line, after an upgrade.
func echoUpgrade(w http.ResponseWriter, _ *http.Request) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	for buf.Flush() == nil {
		line, err := buf.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprint(buf, "echo "+line)
	}
}

// TestAnIdleConnectionIsUsedAgain: the deadline of one answer does not end the next.
func TestAnIdleConnectionIsUsedAgain(t *testing.T) {
	_, addr := one(t, Config{Limits: Limits{Stall: moving}}, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s", text)
	})
	c := raw(t, addr, "")
	r := bufio.NewReader(c)
	for range 3 {
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a.b\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		for _, want := range []int{http.StatusContinue, http.StatusOK} {
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != want {
				t.Fatalf("got %v (%v), want %d", resp, err, want)
			}
			if want == http.StatusContinue {
				fmt.Fprint(c, "hello")
				continue
			}
			if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "hello" {
				t.Fatalf("got %q (%v)", text, err)
			}
		}
		<-time.After(2 * moving)
	}
}

// TestAnAnswerWithALargeHeader is the service's fault.
func TestAnAnswerWithALargeHeader(t *testing.T) {
	_, addr := one(t, Config{Limits: Limits{AnswerHeaderBytes: 1 << 10}}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 8<<10))
	})
	if status, _ := get(t, addr, "a.b", nil); status != http.StatusBadGateway {
		t.Errorf("got %d, want 502", status)
	}
}

// TestAChangeOfRoutesBreaksNoConnection: open connections continue, even if their own host was removed.
func TestAChangeOfRoutesBreaksNoConnection(t *testing.T) {
	i, addr := one(t, Config{}, echoUpgrade)
	c := raw(t, addr, "GET / HTTP/1.1\r\nHost: a.b\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	for _, change := range []*carav1.Routes{
		{Upserts: []*carav1.Route{{Host: "c.d", Project: "q", Service: "w", Port: 1, Node: "n2"}}}, {RemovedHosts: []string{"a.b"}}, {Full: true},
	} {
		i.Apply(change)
		fmt.Fprint(c, "hello\n")
		if line, err := r.ReadString('\n'); err != nil || line != "echo hello\n" {
			t.Fatalf("got %q (%v) after %v", line, err, change)
		}
	}
}
