package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// load is what clients do to one host of an ingress, all the time: on connections that they keep and on new ones, with
// and without a body, quick and slow.
type load struct {
	stop func()

	mu       sync.Mutex
	requests int
	failures []string
	versions map[string]int // how often each version answered
}

var versionOf = regexp.MustCompile(`web (v\d+) `)

// load begins with eight clients. It ends with stop, or with the test.
func (w *testCluster) load(node, host string) *load {
	ctx, cancel := context.WithCancel(w.Context())
	l := &load{versions: map[string]int{}}
	var clients sync.WaitGroup
	for n := range 8 {
		clients.Go(func() { l.client(ctx, n, "http://"+w.ingress[node], host) })
	}
	l.stop = sync.OnceFunc(func() { cancel(); clients.Wait() })
	w.Cleanup(l.stop)
	return l
}

func (l *load) client(ctx context.Context, n int, url, host string) {
	transport := &http.Transport{DisableKeepAlives: n%2 == 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for i := 0; ; i++ {
		method, path, body, want := http.MethodGet, "/", "", "web v"
		switch {
		case n/2 == 1:
			method, path, body, want = http.MethodPost, "/healthz", "ok=true", ""
		case n/2 == 2 && i%10 == 0:
			path, want = "/slow?ms=300", "slow"
		}
		page, err := ask(ctx, client, method, url+path, host, body)
		if err == nil && !strings.Contains(page, want) {
			err = fmt.Errorf("%q lacks %q", page, want)
		}
		if ctx.Err() != nil {
			return
		}
		l.count(fmt.Sprintf("client %d, request %d, %s %s", n, i, method, path), page, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, client *http.Client, method, url, host, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Host = host
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, page)
	}
	return string(page), err
}

func (l *load) count(what, page string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if err != nil {
		l.failures = append(l.failures, fmt.Sprintf("%s %s: %v", time.Now().Format(time.StampMilli), what, err))
	}
	if v := versionOf.FindStringSubmatch(page); v != nil {
		l.versions[v[1]]++
	}
}

// none says that not one request failed so far.
func (l *load) none(w *testCluster) {
	w.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) > 0 {
		w.Fatalf("%d of %d requests failed:\n%s", len(l.failures), l.requests, strings.Join(l.failures[:min(len(l.failures), 20)], "\n"))
	}
}

// stream is a connection that stays open: a WebSocket, or a stream of events.
type stream struct {
	conn   net.Conn
	reader *bufio.Reader
}

// dial opens one. headers are whole lines.
func (w *testCluster) dial(node, host, path, headers string) *stream {
	w.Helper()
	conn, err := new(net.Dialer).DialContext(w.Context(), "tcp", w.ingress[node])
	w.must(err)
	w.Cleanup(func() { conn.Close() })
	w.must(conn.SetDeadline(time.Now().Add(5 * time.Minute)))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, host, headers)
	l := &stream{conn: conn, reader: bufio.NewReader(conn)}
	status, err := l.reader.ReadString('\n')
	w.must(err)
	if !strings.Contains(status, " 101 ") && !strings.Contains(status, " 200 ") {
		w.Fatalf("%s answers %s", host, status)
	}
	for {
		header, err := l.reader.ReadString('\n')
		w.must(err)
		if strings.TrimSpace(header) == "" {
			return l
		}
	}
}

// echoes sends a frame on a WebSocket and wants it back.
func (l *stream) echoes(text string) error {
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...) // masked with zeros
	if _, err := l.conn.Write(frame); err != nil {
		return err
	}
	got := make([]byte, 2+len(text))
	if _, err := io.ReadFull(l.reader, got); err != nil {
		return err
	}
	if string(got[2:]) != text {
		return fmt.Errorf("echoed %q, want %q", got[2:], text)
	}
	return nil
}

// event reads the next one, and wants it to be the n-th.
func (l *stream) event(n int) error {
	for {
		text, err := l.reader.ReadString('\n')
		if err != nil {
			return err
		}
		if id, ok := strings.CutPrefix(text, "id: "); ok {
			if strings.TrimSpace(id) != fmt.Sprint(n) {
				return errors.New("event " + strings.TrimSpace(id) + " after " + fmt.Sprint(n-1))
			}
			return nil
		}
	}
}
