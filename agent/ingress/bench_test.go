package ingress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// BenchmarkProxy compares the ingress with a bare httputil.ReverseProxy in front of the same service: requests/s and p99 of
// 16 clients with persistent connections. Each client is a few lines over a socket, so that only the proxy differs.
func BenchmarkProxy(b *testing.B) {
	for size, answer := range map[string]string{"100B": fmt.Sprintf("%0100d", 0), "100KiB": fmt.Sprintf("%0102400d", 0)} {
		ip, port := backend100(b, answer)
		addr := net.JoinHostPort(ip, fmt.Sprint(port))
		for _, kind := range []struct {
			name  string
			serve func(b *testing.B) string
		}{
			{"direct", func(*testing.B) string { return addr }},
			{"bare", func(b *testing.B) string { return bare(b, addr) }},
			{"ingress", func(b *testing.B) string { return ingressTo(b, ip, port, Config{}) }},
			{"ingress+log+metrics", func(b *testing.B) string {
				f, err := os.Create(b.TempDir() + "/access.log")
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { f.Close() })
				return ingressTo(b, ip, port, Config{AccessLog: f, Metrics: prometheus.NewRegistry()})
			}},
		} {
			b.Run(kind.name+"/"+size, func(b *testing.B) { load(b, kind.serve(b), len(answer)) })
		}
	}
}

func backend100(b *testing.B, answer string) (string, int32) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	b.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	var port int32
	if _, err := fmt.Sscan(u.Port(), &port); err != nil {
		b.Fatal(err)
	}
	return u.Hostname(), port
}

// bare is the proxy of the standard library's documentation, with persistent connections.
func bare(b *testing.B, addr string) string {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	s := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: addr})
		p.SetXForwarded()
	}})
	b.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func ingressTo(b *testing.B, ip string, port int32, cfg Config) string {
	cfg.Node, cfg.Endpoint, cfg.Logger = "n1", up(ip), slog.New(slog.DiscardHandler)
	i := New(cfg)
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n1"}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx, Listeners{Internal: l}) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return l.Addr().String()
}

// load sends b.N requests by 16 clients.
func load(b *testing.B, addr string, size int) {
	const clients = 16
	took := make([][]time.Duration, clients)
	work := make(chan struct{}, clients)
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	begun, processor := time.Now(), used(b)
	for c := range clients {
		all.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			r := bufio.NewReaderSize(conn, 64<<10)
			for range work {
				sent := time.Now()
				if err := ask(conn, r, size); err != nil {
					b.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(sent))
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	all.Wait()
	elapsed := time.Since(begun)
	processor = used(b) - processor
	b.StopTimer()
	sorted := slices.Concat(took...)
	slices.Sort(sorted)
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "req/s")
	b.ReportMetric(float64(processor.Nanoseconds())/1000/float64(b.N), "µs-processor")
	b.ReportMetric(float64(sorted[len(sorted)*99/100].Microseconds()), "µs-p99")
}

// used returns the CPU time of this process: clients, proxy and service.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ask(conn net.Conn, r *bufio.Reader, size int) error {
	if _, err := io.WriteString(conn, "GET /some/page HTTP/1.1\r\nHost: a.b\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != int64(size)) {
		err = fmt.Errorf("%s, %d bytes", resp.Status, n)
	}
	return err
}
