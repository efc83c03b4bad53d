package ingress

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caravanserai/cara/internal/text"
)

const (
	// maxQueued is the maximum size of lines waiting to be written, in bytes: about ten thousand lines.
	maxQueued = 4 << 20
	// gather is how long lines are collected for one write.
	gather = 100 * time.Millisecond
	// maxPath and maxMethod limit what a line quotes of a request, in bytes.
	maxPath, maxMethod = 1024, 32
)

// accessLog writes a JSON line for each request, and never delays a request. If lines arrive faster than they can be
// written, or cannot be written at all, they are dropped, and a line reports how many. A nil accessLog does nothing. The
// query is omitted, since it may contain secrets.
type accessLog struct {
	node  string
	out   io.Writer
	log   *slog.Logger // for problems of the log itself
	lines *slog.Logger // writes to the queue
	wake  chan struct{}
	total atomic.Int64 // lines dropped since the start

	mu    sync.Mutex
	queue []byte
	lost  int // lines dropped since the last report
}

func newAccessLog(out io.Writer, node string, log *slog.Logger) *accessLog {
	if out == nil {
		return nil
	}
	a := &accessLog{node: node, out: out, log: log, wake: make(chan struct{}, 1)}
	a.lines = slog.New(slog.NewJSONHandler(a, nil))
	return a
}

func (a *accessLog) add(ctx context.Context, x *exchange, took time.Duration, whole bool) {
	if a == nil {
		return
	}
	var project, service string
	if x.route != nil {
		project, service = x.route.Project, x.route.Service
	}
	attrs := append(make([]slog.Attr, 0, 13),
		slog.String("host", text.Clip(hostname(x.request.Host), maxHost)), slog.String("project", project), slog.String("service", service),
		slog.String("node", a.node), slog.String("method", text.Clip(x.request.Method, maxMethod)),
		slog.String("path", text.Clip(x.request.URL.EscapedPath(), maxPath)), slog.Int("status", x.status),
		slog.Int64("bytes", x.sent.Load()), slog.Int64("received", x.received.Load()),
		slog.Float64("duration", took.Seconds()), slog.String("remote", x.client()))
	if x.via != "" {
		attrs = append(attrs, slog.String("via", text.Clip(x.via, maxHost)))
	}
	if !whole {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	a.lines.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// client returns the address of a request's client, as seen by the first agent.
func (x *exchange) client() string {
	if x.via != "" {
		return text.Clip(x.request.Header.Get("X-Forwarded-For"), maxHost)
	}
	host, _, err := net.SplitHostPort(x.request.RemoteAddr)
	if err != nil {
		return x.request.RemoteAddr
	}
	return host
}

// Write queues one line.
func (a *accessLog) Write(line []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue)+len(line) > maxQueued {
		a.lose(1)
		return len(line), nil
	}
	a.queue = append(a.queue, line...)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return len(line), nil
}

// lose counts dropped lines. mu is held.
func (a *accessLog) lose(lines int) {
	a.lost += lines
	a.total.Add(int64(lines))
}

// run writes queued lines until ctx ends, and then the rest.
func (a *accessLog) run(ctx context.Context) {
	var spare []byte
	failing := false
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-a.wake:
			select {
			case <-ctx.Done():
				ended = true
			case <-time.After(gather):
			}
		}
		a.mu.Lock()
		lines, lost := a.queue, a.lost
		a.queue, a.lost = spare[:0], 0
		a.mu.Unlock()
		spare = lines
		err := a.write(lines, lost)
		if err != nil && !failing {
			a.log.Warn("access log not written", "node", a.node, "error", err)
		}
		failing = err != nil
	}
}

// write writes lines, and a line about dropped ones. What cannot be written is dropped.
func (a *accessLog) write(lines []byte, lost int) error {
	out := bytes.NewBuffer(lines)
	if lost > 0 {
		slog.New(slog.NewJSONHandler(out, nil)).Warn("access log lost lines", "node", a.node, "lines", lost)
	}
	if out.Len() == 0 {
		return nil
	}
	_, err := a.out.Write(out.Bytes())
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.lost += lost
		a.lose(bytes.Count(lines, []byte("\n")))
	}
	return err
}

func (a *accessLog) lostLines() int64 {
	if a == nil {
		return 0
	}
	return a.total.Load()
}
