package sources_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// timed records when it was probed, and how often it was fetched.
type timed struct {
	*memory
	mu      sync.Mutex
	probes  []time.Time
	answers func() error
}

func (m *timed) Open(*carav1.SourceSpec, map[string][]byte) (sources.Driver, error) { return m, nil }

func (m *timed) Probe(ctx context.Context, maxAge time.Duration) (string, error) {
	m.mu.Lock()
	m.probes = append(m.probes, time.Now())
	answers := m.answers
	m.mu.Unlock()
	if answers != nil {
		if err := answers(); err != nil {
			return "", err
		}
	}
	return m.memory.Probe(ctx, maxAge)
}

func (m *timed) taken() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.probes
	m.probes = nil
	return p
}

// inTime runs Sources over one source in a bubble whose clock is the test's.
func inTime(t *testing.T, test func(t *testing.T, m *timed, server *sourcetest.Server)) {
	synctest.Test(t, func(t *testing.T) {
		m := &timed{memory: &memory{}}
		m.Write("a.yaml", sourcetest.Project("a", "web:1"))
		server := sourcetest.NewServer()
		server.Put(&carav1.Source{
			Metadata: &carav1.ObjectMeta{Name: sourcetest.Name, Uid: "u", Generation: 1}, Spec: m.Spec(),
		})
		s := sources.New(sources.Config{Conn: server.Conn(), Git: m, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = s.Run(ctx) })
		time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock: past the first look
		synctest.Wait()
		test(t, m, server)
		cancel()
		run.Wait()
	})
}

func TestDeliveryIsProbedAtOnce(t *testing.T) {
	inTime(t, func(t *testing.T, m *timed, server *sourcetest.Server) {
		m.taken()
		told := time.Now()
		if n := server.Deliver(sourcetest.Name); n != 1 {
			t.Fatalf("%d listen", n)
		}
		server.Deliver("nobody")
		synctest.Wait()
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the bubble's clock
		if p := m.taken(); len(p) != 1 || p[0].Sub(told) > 100*time.Millisecond {
			t.Errorf("told at %s, probed at %v", told, p)
		}

		server.CutHints()
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		m.taken()
		told = time.Now()
		if n := server.Deliver(sourcetest.Name); n != 1 {
			t.Fatalf("%d listen after the stream broke", n)
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the bubble's clock
		if p := m.taken(); len(p) != 1 || p[0].Sub(told) > 100*time.Millisecond {
			t.Errorf("after the stream broke: told at %s, probed at %v", told, p)
		}
	})
}

func TestStormOfPushesAndDeliveriesEndsAtTheLast(t *testing.T) {
	inTime(t, func(t *testing.T, m *timed, server *sourcetest.Server) {
		m.memory.taken()
		for i := range 200 {
			m.Write("a.yaml", sourcetest.Project("a", fmt.Sprintf("web:%d", i)))
			m.Publish()
			server.Deliver(sourcetest.Name)
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the bubble's clock
		}
		time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		_, trees := m.memory.taken()
		src := fakecluster.Read[*carav1.Source](server.Cluster, sourcetest.Name)
		if got := src.Status.Snapshot.Revision; got != "rev-000000200" || trees > 7 {
			t.Errorf("ended at %s after %d fetches", got, trees)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	inTime(t, func(t *testing.T, m *timed, server *sourcetest.Server) {
		busy := sources.Retry(api.ReasonUnreachable, "answered 429")
		busy.RetryAfter = 10 * time.Minute
		m.mu.Lock()
		m.answers = func() error { return busy }
		m.mu.Unlock()
		server.Deliver(sourcetest.Name)
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		m.taken()
		for range 9 {
			time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
			server.Deliver(sourcetest.Name)
		}
		synctest.Wait()
		if p := m.taken(); len(p) != 0 {
			t.Errorf("probed at %v though the server asked for ten minutes of peace", p)
		}
		time.Sleep(3 * time.Minute) //nolint:forbidigo // the bubble's clock
		if p := m.taken(); len(p) == 0 {
			t.Error("not probed after the ten minutes")
		}
	})
}

func TestClaimsSayWhoChangedThem(t *testing.T) {
	m := &signed{memory: &memory{}, author: "Ada <ada@example.com>", subject: "Add a and b"}
	m.Write("a.yaml", sourcetest.Project("a", "web:1"))
	m.Write("b.yaml", sourcetest.Project("b", "web:1"))
	w := sourcetest.New(t, m)
	w.Start()
	w.Create()
	w.Published(1)
	m.set(func() { m.author, m.subject = "Bob <bob@example.com>", strings.Repeat("long ", 200) })
	m.Write("b.yaml", sourcetest.Project("b", "web:2"))
	m.Publish()
	w.Hint()
	w.Published(2)
	a := fakecluster.Read[*carav1.Claim](w.Server.Cluster, "platform/a").Spec
	b := fakecluster.Read[*carav1.Claim](w.Server.Cluster, "platform/b").Spec
	if a.Author != "Ada <ada@example.com>" || a.Subject != "Add a and b" || a.CommitTime.AsTime() != time.Unix(1, 0).UTC() {
		t.Errorf("a: %s, %s, %s", a.Author, a.Subject, a.CommitTime.AsTime())
	}
	if b.Author != "Bob <bob@example.com>" || len(b.Subject) > 512 || b.CommitTime.AsTime() != time.Unix(2, 0).UTC() {
		t.Errorf("b: %s, %s, %s", b.Author, b.Subject, b.CommitTime.AsTime())
	}
}

// signed is a source whose revisions have commits.
type signed struct {
	*memory
	author, subject string
}

func (m *signed) Opener() sources.Opener { return m }

func (m *signed) Open(*carav1.SourceSpec, map[string][]byte) (sources.Driver, error) { return m, nil }

func (m *signed) Tree(ctx context.Context, revision string) (*sources.Tree, error) {
	tree, err := m.memory.Tree(ctx, revision)
	m.set(func() {
		tree.Ref, tree.Author, tree.Subject, tree.Time = "refs/heads/main", m.author, m.subject, time.Unix(int64(m.rev+1), 0)
	})
	return tree, err
}

// A hanging host has many sources, and there are few workers: sources on other hosts are not affected.
func TestHostThatHangsCostsOthersNothing(t *testing.T) {
	m := &memory{}
	m.Write("a.yaml", sourcetest.Project("a", "web:1"))
	server := sourcetest.NewServer()
	add := func(name, url string) {
		server.Put(&carav1.Source{
			Metadata: &carav1.ObjectMeta{Name: name, Uid: "u", Generation: 1},
			Spec:     &carav1.SourceSpec{Git: &carav1.GitSource{Url: url}},
		})
	}
	for i := range 50 {
		add(fmt.Sprintf("a-hang-%02d", i), fmt.Sprintf("https://slow.example.com/%d.git", i))
	}
	for i := range 20 {
		add(fmt.Sprintf("fast-%02d", i), "https://fast.example.com/a.git")
	}
	log := &sourcetest.Log{}
	s := sources.New(sources.Config{
		Conn: server.Conn(), Git: beside{m}, Workers: 4, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	defer run.Wait()
	defer cancel()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(server.Publishes()) < 20 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d of 20 fast sources were read\n%s", len(server.Publishes()), log)
		}
	}
	if c := api.FindCondition(fakecluster.Read[*carav1.Source](server.Cluster, "fast-00").Status.Conditions, api.CondFetchFailed); c != nil {
		t.Errorf("%v", c)
	}
}
