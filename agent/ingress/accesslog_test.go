package ingress

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// logWriter is the destination of a log, and can be made to fail.
type logWriter struct {
	mu   sync.Mutex
	text bytes.Buffer
	err  error
}

func (p *logWriter) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	return p.text.Write(b)
}

func (p *logWriter) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// lines waits for n lines and returns them without the fields that vary.
func (p *logWriter) lines(t *testing.T, n int) []map[string]any {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		p.mu.Lock()
		all := strings.Split(strings.TrimSuffix(p.text.String(), "\n"), "\n")
		p.mu.Unlock()
		if len(all) < n || all[0] == "" {
			if time.Now().After(deadline) {
				t.Fatalf("%d lines, want %d: %q", len(all), n, all)
			}
			continue
		}
		var out []map[string]any
		for _, line := range all {
			m := map[string]any{}
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if d, ok := m["duration"].(float64); m["msg"] == "request" && (!ok || d <= 0 || d > 60) {
				t.Errorf("%.300q took no time that can be", line)
			}
			delete(m, "time")
			delete(m, "duration")
			out = append(out, m)
		}
		return out
	}
}

// TestAccessLog has a line for each request, with what was answered and no secret of the query.
func TestAccessLog(t *testing.T) {
	var p logWriter
	_, addr := one(t, Config{AccessLog: &p}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "short")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "short and stout")
	})
	for n, request := range []string{
		"POST /pot?token=secret HTTP/1.1\r\nHost: A.B:8081\r\nContent-Length: 3\r\nConnection: close\r\n\r\nmix",
		"GET /" + strings.Repeat("x", 3000) + " HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n",
		"GET /broken HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n",
	} {
		raw(t, addr, request)
		p.lines(t, n+1)
	}
	want := []map[string]any{
		{
			"level": "INFO", "msg": "request", "host": "a.b", "project": "p", "service": "w", "node": "n1", "method": "POST",
			"path": "/pot", "status": 418.0, "bytes": 15.0, "received": 3.0, "remote": "127.0.0.1",
		},
		{
			"level": "INFO", "msg": "request", "host": "nobody.example", "project": "", "service": "", "node": "n1", "method": "GET",
			"path": "/" + strings.Repeat("x", 1020) + "...", "status": 404.0, "bytes": 60.0, "received": 0.0, "remote": "127.0.0.1",
		},
		{
			"level": "INFO", "msg": "request", "host": "a.b", "project": "p", "service": "w", "node": "n1", "method": "GET",
			"path": "/broken", "status": 200.0, "bytes": 5.0, "received": 0.0, "remote": "127.0.0.1", "aborted": true,
		},
	}
	if diff := cmp.Diff(want, p.lines(t, 3)); diff != "" {
		t.Errorf("lines differ (-want +got):\n%s", diff)
	}
}

// TestAccessLogOfAnUpgrade comes when the connection ends, with what passed.
func TestAccessLogOfAnUpgrade(t *testing.T) {
	var p logWriter
	_, addr := one(t, Config{AccessLog: &p}, echoUpgrade)
	c := raw(t, addr, "GET /ws HTTP/1.1\r\nHost: a.b\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "hello\n")
	if line, err := r.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Fatalf("got %q (%v)", line, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	line := p.lines(t, 1)[0]
	if line["status"] != 101.0 || line["bytes"] != 11.0 || line["received"] != 6.0 {
		t.Errorf("got %v, want status 101, 11 bytes out and 6 in", line)
	}
}

// TestAccessLogNeverWaits: lines that cannot be taken are lost, and counted.
func TestAccessLogNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p logWriter
		a := newAccessLog(&p, "n1", slog.New(slog.DiscardHandler))
		line := []byte(`{"msg":"line","pad":"` + strings.Repeat("x", 1000) + `"}` + "\n")
		fits := maxQueued / len(line)
		for range fits + 7 {
			if _, err := a.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			a.run(ctx)
			close(ended)
		}()
		<-time.After(2 * gather)
		synctest.Wait()
		p.fail(errors.New("out of ink"))
		if _, err := a.Write(line); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * gather)
		synctest.Wait()
		p.fail(nil)
		if _, err := a.Write([]byte(`{"msg":"last"}` + "\n")); err != nil {
			t.Fatal(err)
		}
		cancel() // what has come is written at the end
		<-ended
		lines := p.lines(t, fits+3)
		told := []any{lines[fits]["lines"], lines[fits+1]["msg"], lines[fits+2]["lines"]}
		if diff := cmp.Diff([]any{7.0, "last", 1.0}, told); diff != "" {
			t.Errorf("what was told of lost lines differs (-want +got):\n%s", diff)
		}
		if lost := a.lostLines(); lost != 8 {
			t.Errorf("%d lines are counted as lost, want 8", lost)
		}
	})
}

// TestLogFile never takes more than twice its limit, and follows a file that is moved.
func TestLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	f := &LogFile{Path: path, Max: 10}
	write := func(text string) {
		t.Helper()
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for name := range want {
			text, err := os.ReadFile(path + name)
			if err != nil {
				t.Fatal(err)
			}
			got[name] = string(text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("files differ (-want +got):\n%s", diff)
		}
	}
	write("one\n")
	write("two\n")
	holds(map[string]string{"": "one\ntwo\n"})
	write("three\n")
	holds(map[string]string{"": "three\n", ".1": "one\ntwo\n"})
	write("four four four\n")
	holds(map[string]string{"": "four four four\n", ".1": "three\n"})
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	write("five\n")
	holds(map[string]string{"": "five\n", ".moved": "four four four\n"})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again := &LogFile{Path: path, Max: 10}
	if err := again.Open(); err != nil {
		t.Fatal(err)
	}
	f = again
	write("six\n")
	holds(map[string]string{"": "five\nsix\n"})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
