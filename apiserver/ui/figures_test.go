package ui_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/apiserver/ui"
	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// The environment of the measurements. make bench-page sets figuresEnv to how long each lasts; readerEnv makes this program a reader of streams.
const (
	figuresEnv = "CARA_PAGE_FIGURES"
	readerEnv  = "CARA_PAGE_READER"
)

// lasting returns how long a measurement lasts, and skips the test if none was asked for.
func lasting(t *testing.T) time.Duration {
	t.Helper()
	value := os.Getenv(figuresEnv)
	if value == "" {
		t.Skip("a measurement: make bench-page")
	}
	d, err := time.ParseDuration(value)
	must(t, err)
	return d
}

// TestOpenPages measures what 50 open pages cost a server that has 10,000 projects, of which 100 change in a second. The pages are
// streams that another process reads, so that only the server's processor time counts.
func TestOpenPages(t *testing.T) {
	d := lasting(t)
	s := newSite(t)
	s.put(t, node("n1"))
	s.put(t, many(10_000)...)
	defer s.changing(t, 100)()
	alone := measure(t, d)
	t.Logf("no page: %.1f %% of a core, and so much for the changes", 100*alone)
	for _, path := range []string{"", "projects", "projects/shop-00001", "previews", "nodes"} {
		for _, queries := range []int{1, 50} {
			read := s.reader(t, path, 50, queries)
			busy := measure(t, d)
			events, bytes := read()
			t.Logf("50 open pages of /ui/%s, %d different: %.1f %% of a core more; each page got %.1f views and %.0f KiB in a second",
				path, queries, 100*(busy-alone), float64(events)/50/d.Seconds(), float64(bytes)/50/1024/d.Seconds())
		}
	}
}

// TestTabMemory leaves tabs open while 100 of 10,000 projects change in a second. What a tab keeps does not grow.
func TestTabMemory(t *testing.T) {
	d := lasting(t)
	b := testbrowser.Open(t)
	s := newSite(t)
	s.put(t, node("n1"))
	s.put(t, many(10_000)...)
	defer s.changing(t, 100)()
	paths := []string{"", "projects", "projects?phase=Failed", "projects/shop-07919"}
	tabs, first := make([]*testbrowser.Tab, len(paths)), make([]testbrowser.Memory, len(paths))
	for i, path := range paths {
		tabs[i] = s.tab(t, b, s.token)
		must(t, tabs[i].Go(s.url+"/ui/"+path), tabs[i].Until("document.getElementById('main').dataset.open"), tabs[i].Eval(`window.views = 0;
			new MutationObserver((all) => { window.views += all.length }).observe(document.getElementById("main"), {attributeFilter: ["data-id"]})`, nil))
	}
	const looks = 10
	for look := range looks + 1 {
		for i, path := range paths {
			m, err := tabs[i].Memory()
			must(t, err)
			var views int
			must(t, tabs[i].Eval("window.views", &views))
			t.Logf("/ui/%s after %s and %d views: %.2f MiB of objects, %d nodes, %d listeners, %d documents",
				path, d*time.Duration(look)/looks, views, m.Heap/(1<<20), m.Nodes, m.Listeners, m.Documents)
			switch {
			case look == 1:
				first[i] = m
			case look == looks && (m.Heap > first[i].Heap+1<<20 || m.Nodes > 2*first[i].Nodes || m.Listeners > first[i].Listeners+10):
				t.Errorf("/ui/%s keeps %+v, and kept %+v after a tenth of the time", path, m, first[i])
			}
		}
		if look < looks {
			measure(t, d/looks)
		}
	}
}

// measure returns how much of a core this process uses.
func measure(t *testing.T, d time.Duration) float64 {
	t.Helper()
	before := processorTime(t)
	began := time.Now()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
	return (processorTime(t) - before).Seconds() / time.Since(began).Seconds()
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// changing changes so many projects in a second, each with an event, until the function that it returns is called.
func (s *site) changing(t *testing.T, rate int) func() {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			name := fmt.Sprintf("shop-%05d", i*7919%10_000)
			p := project(name)
			if i%10 == 0 {
				p = failed(name, "CrashLoop", fmt.Sprintf("service app exited %d times", i))
			}
			p.Status.Services[0].StartedAt = timestamppb.Now()
			s.put(t, p, event(fmt.Sprintf("%016d", i%2000), name, "Changed", fmt.Sprintf("change %d", i))) //nolint:contextcheck // the last change is not cut off
		}
	}()
	return func() { stop(); <-done }
}

// reader opens pages in another process. The function it returns ends them, and returns what they have got.
func (s *site) reader(t *testing.T, path string, pages, queries int) func() (events, bytes int64) {
	t.Helper()
	in := s.login(t, s.token)
	at, err := url.Parse(s.url)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReadStreams$", "-test.v")
	cmd.Env = append(os.Environ(), readerEnv+"="+strings.Join([]string{s.url + ui.Prefix + "live/" + path, in.Jar.Cookies(at)[0].String(), strconv.Itoa(pages), strconv.Itoa(queries)}, " "))
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	lines := bufio.NewScanner(stdout)
	scan := func(format string, into ...any) {
		t.Helper()
		for lines.Scan() {
			if n, _ := fmt.Sscanf(lines.Text(), format, into...); n == len(into) {
				return
			}
		}
		t.Fatalf("the reader of the pages ended without %q", format)
	}
	var ready int
	scan("open %d", &ready)
	return func() (events, bytes int64) {
		must(t, stdin.Close())
		scan("got %d %d", &events, &bytes)
		_ = cmd.Wait()
		return events, bytes
	}
}

// TestReadStreams is the process of reader.
func TestReadStreams(t *testing.T) {
	args := strings.Fields(os.Getenv(readerEnv))
	if len(args) != 4 {
		t.Skip("not a test: TestOpenPages runs it")
	}
	pages, err := strconv.Atoi(args[2])
	must(t, err)
	queries, err := strconv.Atoi(args[3])
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var open sync.WaitGroup
	var events, bytes atomic.Int64
	open.Add(pages)
	for i := range pages {
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?n=%d", args[0], i%queries), nil)
			if err != nil {
				panic(err)
			}
			req.Header.Set("Cookie", args[1])
			req.Header.Set("Accept", "text/event-stream")
			resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
			open.Done()
			if err != nil {
				panic(err)
			}
			defer resp.Body.Close()
			for buf := make([]byte, 64<<10); ; {
				n, err := resp.Body.Read(buf)
				bytes.Add(int64(n))
				events.Add(int64(strings.Count(string(buf[:n]), "event: view")))
				if err != nil {
					return
				}
			}
		})
	}
	open.Wait()
	fmt.Printf("open %d\n", pages)
	_, _ = io.Copy(io.Discard, os.Stdin)
	got, size := events.Load(), bytes.Load()
	stop()
	all.Wait()
	fmt.Printf("got %d %d\n", got, size)
}
