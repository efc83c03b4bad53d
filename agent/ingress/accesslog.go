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
	// maxQueued bounds the lines that wait to be written, in bytes: some ten thousand of them.
	maxQueued = 4 << 20
	// gather is how long lines are gathered for one write.
	gather = 100 * time.Millisecond
	// maxPath and maxMethod bound what a line repeats of a request, in bytes.
	maxPath, maxMethod = 1024, 32
)

// accessLog writes a line of JSON for each request, and never makes a request wait: where the lines come faster than
// they can be written, or cannot be written at all, they are lost, and a line says how many. A nil accessLog takes
// nothing. The query is left out, since it may carry secrets.
type accessLog struct {
	node  string
	out   io.Writer
	log   *slog.Logger // for what goes wrong
	lines *slog.Logger // into the queue
	wake  chan struct{}
	total atomic.Int64 // lines lost since the start

	mu    sync.Mutex
	queue []byte
	lost  int // lines, since it was last told
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

// client is the address that a request came from, as the first agent on its way saw it.
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

// Write takes one line in.
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

// lose is called with mu held.
func (a *accessLog) lose(lines int) {
	a.lost += lines
	a.total.Add(int64(lines))
}

// run writes what comes, and when ctx ends what has come.
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

// write appends lines, and how many were lost before. What cannot be written is lost, too.
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

// lostLines since the start.
func (a *accessLog) lostLines() int64 {
	if a == nil {
		return 0
	}
	return a.total.Load()
}
