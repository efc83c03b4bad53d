package sourcetest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/sources"
)

// Name of the source in every test.
const Name = "platform"

// Subject is one source of a type. The tests change its files.
type Subject interface {
	// Spec returns the source's spec, with only its address.
	Spec() *carav1.SourceSpec
	// Secret returns the values of the spec's secretRef, or nil if it has none.
	Secret() map[string][]byte
	// Opener returns the opener of its driver.
	Opener() sources.Opener
	Write(path, content string)
	Remove(path string)
	Symlink(path, target string)
	// Publish makes all writes visible as one revision.
	Publish()
	// Break makes the source unreachable. Mend ends that.
	Break()
	Mend()
}

// Harness is a running Sources with one subject.
type Harness struct {
	tb      testing.TB
	Server  *Server
	Subject Subject
	Log     *Log
	sources *sources.Sources
	stop    func()
	asked   int
}

// New returns a harness whose source does not exist yet.
func New(tb testing.TB, s Subject) *Harness {
	w := &Harness{tb: tb, Server: NewServer(), Subject: s, Log: &Log{}}
	tb.Cleanup(func() { w.Stop() })
	return w
}

// Start runs Sources. After Stop it acts as a restart.
func (w *Harness) Start() {
	opener := w.Subject.Opener()
	w.sources = sources.New(sources.Config{
		Conn: w.Server.Conn(), Git: opener, Dir: opener, Logger: slog.New(slog.NewTextHandler(w.Log, nil)),
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.tb.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.sources.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-done
	}
}

// Stop ends Sources.
func (w *Harness) Stop() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// Create creates the source in the cluster.
func (w *Harness) Create(change ...func(*carav1.SourceSpec)) {
	spec := w.Subject.Spec()
	for _, c := range change {
		c(spec)
	}
	if secret := w.Subject.Secret(); secret != nil {
		w.Server.Secret(Name, secret)
	}
	w.Server.Put(&carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource,
		Metadata: &carav1.ObjectMeta{Name: Name, Uid: "uid-1", Generation: 1}, Spec: spec,
	})
}

// Source returns the current source.
func (w *Harness) Source() *carav1.Source {
	return fakecluster.Read[*carav1.Source](w.Server.Cluster, Name)
}

// Change updates the source, as a user would.
func (w *Harness) Change(change func(*carav1.Source)) {
	w.tb.Helper()
	err := w.Server.Update(func(tx *fakecluster.Tx) error {
		src := fakecluster.Get[*carav1.Source](tx, Name)
		before := proto.CloneOf(src)
		change(src)
		if !proto.Equal(before.Spec, src.Spec) {
			src.Metadata.Generation++
		}
		tx.Put(src)
		return nil
	})
	if err != nil {
		w.tb.Fatal(err)
	}
}

// Ask requests a pass, as a user would.
func (w *Harness) Ask() {
	w.tb.Helper()
	w.asked++
	w.Change(func(s *carav1.Source) {
		if s.Status == nil {
			s.Status = &carav1.SourceStatus{}
		}
		s.Status.RequestedToken = fmt.Sprintf("ask-%04d", w.asked)
	})
}

// Hint pokes the source, as a webhook would.
func (w *Harness) Hint() { w.sources.Poke(Name) }

// Wait waits until ok returns true. what describes the condition.
func (w *Harness) Wait(what string, ok func() bool) {
	w.tb.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			w.tb.Fatalf("waited in vain: %s\nsource: %v\nclaims: %s\nevents: %v\nlog:\n%s", what, w.Source(), strings.Join(w.Claims(), "\n"), w.Server.Events(), w.Log)
		case <-tick.C:
		}
	}
}

// Published waits for the nth snapshot, counted from 1, and returns it.
func (w *Harness) Published(n int) Publish {
	w.tb.Helper()
	w.Wait(fmt.Sprintf("snapshot %d", n), func() bool { return len(w.Server.Publishes()) >= n })
	return w.Server.Publishes()[n-1]
}

// push publishes what was written as the nth snapshot, and returns it.
func (w *Harness) push(n int) Publish {
	w.tb.Helper()
	w.Subject.Publish()
	w.Hint()
	return w.Published(n)
}

// Looked waits until a new pass has run and its results are written.
func (w *Harness) Looked() {
	w.tb.Helper()
	before := w.Server.Polled(Name)
	w.Hint()
	w.Wait("a poll", func() bool { return w.Server.Polled(Name) > before })
}

// Condition waits until a condition has this status, and returns its reason and message.
func (w *Harness) Condition(typ, status string) (reason, message string) {
	w.tb.Helper()
	var c *carav1.Condition
	w.Wait(typ+" "+status, func() bool {
		c = api.FindCondition(w.Source().GetStatus().GetConditions(), typ)
		return c.GetStatus() == status
	})
	return c.Reason, c.Message
}

// Claims returns the claims as text: `project file:line`, with ` absent` or ` held: why`.
func (w *Harness) Claims() []string {
	var all []string
	for _, c := range fakecluster.All[*carav1.Claim](w.Server.Cluster) {
		s := c.Spec
		text := fmt.Sprintf("%s %s:%d", s.Project.Metadata.Name, s.File, s.Line)
		if !s.Present {
			text += " absent"
		}
		if s.Held != "" && s.Present {
			text += " held: " + s.Held
		}
		all = append(all, text)
	}
	return all
}

// Project returns a manifest.
func Project(name, image string) string {
	return fmt.Sprintf("apiVersion: caravanserai/v1\nkind: Project\nmetadata:\n  name: %s\nspec:\n  services:\n  - name: web\n    image: %s\n", name, image)
}

// Log collects log lines.
type Log struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
