package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/sources"
)

var errStalled = errors.New("the stream stalled")

// watchdog ends a stream that is too slow: it cancels the context of the stream's requests.
type watchdog struct {
	cancel context.CancelCauseFunc
	quiet  time.Duration // maximum time without any byte
	window time.Duration // maximum time with fewer than floor bytes
	floor  int64

	mu     sync.Mutex
	quietT *time.Timer
	slowT  *time.Timer
	got    int64
}

// watch starts a watchdog. The caller calls the returned stop function when the stream ends.
func watch(ctx context.Context, quiet time.Duration) (context.Context, *watchdog, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel, quiet: quiet, window: 4 * quiet, floor: 1024}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quietT = time.AfterFunc(quiet, func() { cancel(errStalled) })
	w.slowT = time.AfterFunc(w.window, w.check)
	return ctx, w, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.quietT.Stop()
		w.slowT.Stop()
		w.slowT = nil
		cancel(context.Canceled)
	}
}

func (w *watchdog) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slowT == nil {
		return
	}
	if w.got < w.floor {
		w.cancel(errStalled)
		return
	}
	w.got = 0
	w.slowT.Reset(w.window)
}

func (w *watchdog) saw(n int) {
	if n <= 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got += int64(n)
	w.quietT.Reset(w.quiet)
}

type limited struct {
	r    io.Reader
	dog  *watchdog
	left int64
	max  int64
	what string
}

func limit(r io.Reader, dog *watchdog, most int64, what string) *limited {
	return &limited{r: r, dog: dog, left: most, max: most, what: what}
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, sources.Human(api.ReasonTooLarge, "%s is larger than %s; keep the manifests in a repository or branch of their own",
			l.what, size(l.max))
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	l.dog.saw(n)
	return n, err
}

func size(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
