package git_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gogit "github.com/go-git/go-git/v5"
	gogitconfig "github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/storage/memory"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// peakHeap is how much more of the heap was in use while do ran than before, at most, in MiB.
func peakHeap(do func()) float64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	before, most := sample[0].Value.Uint64(), sample[0].Value.Uint64()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				metrics.Read(sample)
				most = max(most, sample[0].Value.Uint64())
			}
		}
	}()
	do()
	close(done)
	<-ended
	return float64(most-before) / (1 << 20)
}

// BenchmarkMemoryOf90MB reads the manifests of a repository of 90 MB, beside a clone with a worktree by go-git and by
// git. What a server cannot leave out by size comes over the wire.
func BenchmarkMemoryOf90MB(b *testing.B) {
	root := b.TempDir()
	repo := testgit.New(b, root, "app")
	noise := make([]byte, 100<<10)
	for i := range 900 {
		_, _ = rand.Read(noise)
		repo.Write(fmt.Sprintf("assets/%03d.bin", i), string(noise))
	}
	for i := range 100 {
		repo.Write(fmt.Sprintf("deploy/p%03d.yaml", i), sourcetest.Project(fmt.Sprintf("p%03d", i), "web:1"))
	}
	repo.Commit("90 MB")
	repo.Push()
	server := testgit.ServeHTTP(b, root, false)
	url := server.RepoURL("app")
	b.Run("cara", func(b *testing.B) {
		d := open(b, url, nil)
		peak := 0.0
		for b.Loop() {
			peak = max(peak, peakHeap(func() {
				rev, err := d.Probe(b.Context(), 0)
				if err != nil {
					b.Fatal(err)
				}
				tree, err := d.Tree(b.Context(), rev)
				if err != nil {
					b.Fatal(err)
				}
				for _, f := range tree.Files {
					if _, err := f.Read(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				tree.Close()
			}))
		}
		b.ReportMetric(peak, "peak-MiB")
	})
	b.Run("go-git clone with worktree", func(b *testing.B) {
		peak := 0.0
		for b.Loop() {
			peak = max(peak, peakHeap(func() {
				_, err := gogit.PlainCloneContext(b.Context(), b.TempDir(), false, &gogit.CloneOptions{URL: url, Depth: 1, SingleBranch: true, Tags: gogit.NoTags})
				if err != nil {
					b.Fatal(err)
				}
			}))
		}
		b.ReportMetric(peak, "peak-MiB")
	})
	b.Run("git clone with worktree", func(b *testing.B) {
		var peak int64
		for b.Loop() {
			used := command(b, "clone", "--quiet", "--depth=1", "--single-branch", url, filepath.Join(b.TempDir(), "clone"))
			peak = max(peak, used.Maxrss)
		}
		b.ReportMetric(float64(peak)/1024, "peak-MiB") // of the process that took most
	})
}

// command runs git and returns what it used, with the processes that it waited for.
func command(b *testing.B, args ...string) *syscall.Rusage {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "git", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage)
}

// refServer names the address of a benchmark's server; where it is set, the test binary is that server.
const refServer = "CARA_TEST_REFS"

const refsOfEach = 1000

// serveRefs answers probes for any repository, each of refsOfEach branches, until its standard input ends. The first
// line that it prints is its address; for each line that it reads it prints the requests and bytes since the last one.
func serveRefs() {
	line := func(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
	hash := strings.Repeat("a1", 20)
	var all strings.Builder
	all.WriteString(line("# service=git-upload-pack\n") + "0000" + line(hash+" HEAD\x00symref=HEAD:refs/heads/main agent=test\n"))
	for i := range refsOfEach {
		all.WriteString(line(fmt.Sprintf("%s refs/heads/branch-%04d\n", hash, i)))
	}
	all.WriteString(line(hash+" refs/heads/main\n") + "0000")
	v2 := line("# service=git-upload-pack\n") + "0000" + line("version 2\n") + line("ls-refs=unborn\n") + line("fetch=shallow\n") + "0000"
	one := line(hash+" refs/heads/main\n") + "0000"
	var requests, sent atomic.Int64
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		text, kind := all.String(), "advertisement"
		switch {
		case r.Method == http.MethodPost:
			text, kind = one, "result"
		case r.Header.Get("Git-Protocol") != "":
			text = v2
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-"+kind)
		requests.Add(1)
		sent.Add(int64(len(text)))
		_, _ = io.WriteString(w, text)
	})}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0") //nolint:forbidigo // the main of a process of its own
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	go func() { _ = server.Serve(l) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(requests.Swap(0), sent.Swap(0))
	}
	_ = server.Close()
}

// refs is a serveRefs in a process of its own, so that only the client's work is measured.
type refs struct {
	url string
	in  io.Writer
	out *bufio.Reader
}

func startRefs(b *testing.B) *refs {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), refServer+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r := &refs{in: in, out: bufio.NewReader(out)}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil && b.Context().Err() == nil {
			b.Error(err)
		}
	})
	addr, err := r.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	r.url = "http://" + strings.TrimSpace(addr)
	return r
}

// since returns what was asked and sent since the last time.
func (r *refs) since(b *testing.B) (requests, bytes int64) {
	b.Helper()
	if _, err := fmt.Fprintln(r.in); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fscanln(r.out, &requests, &bytes); err != nil {
		b.Fatal(err)
	}
	return requests, bytes
}

func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThousandSources is what 1,000 sources of as many repositories cost when each is polled every 30 seconds, and
// nothing changes: one operation is one poll of one source. core-% and KB/s are those of the whole thousand.
func BenchmarkThousandSources(b *testing.B) {
	server := startRefs(b)
	report := func(b *testing.B, polls int64, used time.Duration, bytes int64) {
		const perSecond = 1000.0 / 30
		each := used.Seconds() / float64(polls)
		b.ReportMetric(each*1e6, "cpu-µs/poll")
		b.ReportMetric(each*perSecond*100, "core-%")
		b.ReportMetric(float64(bytes)/float64(polls)*perSecond/1000, "KB/s")
	}
	b.Run("cara", func(b *testing.B) {
		cluster := sourcetest.NewServer()
		for i := range 1000 {
			url := fmt.Sprintf("%s/%d.git", server.url, i)
			spec := &carav1.SourceSpec{Git: &carav1.GitSource{Url: url, Ref: &carav1.GitRef{Branch: "main"}}, Interval: "1s"}
			cluster.Put(&carav1.Source{
				Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("s-%04d", i), Uid: "u", Generation: 1}, Spec: spec,
			})
		}
		s := sources.New(sources.Config{Conn: cluster.Conn(), Git: probing{git.New(config())}, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(b.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = s.Run(ctx) })
		defer run.Wait()
		defer cancel()
		waitPolls(b, cluster, 2000) // connections stand, and every server is known
		server.since(b)
		began, used := polls(cluster), processor(b)
		for b.Loop() {
			waitPolls(b, cluster, polls(cluster)+1)
		}
		n := polls(cluster) - began
		_, bytes := server.since(b)
		report(b, n, processor(b)-used, bytes)
		if n := len(cluster.Publishes()); n != 1000 {
			b.Errorf("%d snapshots of 1,000 sources that did not change", n)
		}
	})
	b.Run("go-git list", func(b *testing.B) {
		server.since(b)
		n, used := int64(0), processor(b)
		for b.Loop() {
			remote := gogit.NewRemote(memory.NewStorage(), &gogitconfig.RemoteConfig{Name: "origin", URLs: []string{fmt.Sprintf("%s/%d.git", server.url, n%1000)}})
			if _, err := remote.ListContext(b.Context(), &gogit.ListOptions{}); err != nil {
				b.Fatal(err)
			}
			n++
		}
		_, bytes := server.since(b)
		report(b, n, processor(b)-used, bytes)
	})
	b.Run("git ls-remote", func(b *testing.B) {
		server.since(b)
		n, used := int64(0), time.Duration(0)
		for b.Loop() {
			u := command(b, "ls-remote", "--quiet", fmt.Sprintf("%s/%d.git", server.url, n%1000), "refs/heads/main")
			used += time.Duration(u.Utime.Nano() + u.Stime.Nano())
			n++
		}
		_, bytes := server.since(b)
		report(b, n, used, bytes)
	})
	b.Run("fresh git clone with worktree", func(b *testing.B) {
		root := b.TempDir()
		repo := testgit.New(b, root, "app")
		for i := range 100 {
			repo.Write(fmt.Sprintf("p%03d.yaml", i), sourcetest.Project(fmt.Sprintf("p%03d", i), "web:1"))
		}
		repo.Commit("100 manifests")
		repo.Push()
		origin := testgit.ServeHTTP(b, root, false)
		n, used := int64(0), time.Duration(0)
		for b.Loop() {
			u := command(b, "clone", "--quiet", "--depth=1", "--single-branch", origin.RepoURL("app"), filepath.Join(b.TempDir(), "clone"))
			used += time.Duration(u.Utime.Nano() + u.Stime.Nano())
			n++
		}
		_, _, bytes := origin.Totals()
		report(b, n, used, bytes)
	})
}

// probing are git sources that hold nothing: only their probes are real.
type probing struct{ *git.Git }

type probed struct{ sources.Driver }

func (p probing) Open(spec *carav1.SourceSpec, secret map[string][]byte) (sources.Driver, error) {
	d, err := p.Git.Open(spec, secret)
	return probed{d}, err
}

func (probed) Tree(_ context.Context, revision string) (*sources.Tree, error) {
	return &sources.Tree{Revision: revision}, nil
}

// polls is how often any source was polled.
func polls(c *sourcetest.Server) (n int64) { return int64(c.Polls()) }

func waitPolls(b *testing.B, c *sourcetest.Server, n int64) {
	b.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	for polls(c) < n {
		select {
		case <-c.NextPoll():
		case <-deadline.C:
			b.Fatalf("%d polls, want %d", polls(c), n)
		}
	}
}
