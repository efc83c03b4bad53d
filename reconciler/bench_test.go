package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/testlaw"
	"github.com/caravanserai/cara/plan"
)

// inPlace returns a reconciler whose mirror has n projects of one source, all in place.
func inPlace(tb testing.TB, n int) *Reconciler {
	s := newServer()
	r := New(Config{Conn: s.conn(), Logger: slog.New(slog.DiscardHandler)})
	src := testlaw.Source(func(s *carav1.Source) { s.Status.Projects = int32(n) })
	src.Status.Conditions = []*carav1.Condition{{
		Type: api.CondReady, Status: api.StatusTrue, Reason: "Applied", Message: fmt.Sprintf("%d projects as at %s", n, api.ShortRevision(testlaw.Revision)),
	}}
	s.Put(src)
	changes := []loop.Change{{New: src}}
	for i := range n {
		name := fmt.Sprintf("p%05d", i)
		changes = append(changes, loop.Change{New: testlaw.Claim(name, "a:1", testlaw.Applied)}, loop.Change{New: testlaw.Project(name, "a:1", "source/platform")})
	}
	r.index.change(changes)
	r.memory("platform").uid = src.Metadata.Uid
	if _, err := r.pass(tb.Context(), "platform"); err != nil {
		tb.Fatal(err)
	}
	if calls := s.TakeCalls(); len(calls) > 0 {
		tb.Fatalf("a pass over what is in place called %v", calls)
	}
	return r
}

func BenchmarkUnchangedPass(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := inPlace(b, n)
			b.ReportAllocs()
			for b.Loop() {
				r.memory("platform").whole = time.Time{} // look at every project, as a resync does
				if _, err := r.pass(b.Context(), "platform"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOneChange measures a push that changes one of n projects, from the watch event to the server's response.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := inPlace(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				next := testlaw.Claim("p00001", fmt.Sprintf("a:%d", i+2), testlaw.Applied)
				next.Status.AppliedHash = "v1:before"
				r.index.change([]loop.Change{{New: next}})
				in, _ := r.index.input("platform", nil, false, time.Now())
				p := plan.Diff(in)
				if len(p.Steps) != 1 || p.Steps[0].Action != plan.Update {
					b.Fatalf("plan %v", p.Steps)
				}
			}
		})
	}
}

// BenchmarkFirstSync is the whole loop over a cluster in memory: n projects declared, until all are known as applied.
func BenchmarkFirstSync(b *testing.B) {
	for _, n := range []int{1_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				s := newServer()
				src := newSource("platform", "s1")
				src.Status.Snapshot = &carav1.Snapshot{Revision: testlaw.Revision, Complete: true}
				s.Put(src)
				for i := range n {
					s.Put(testlaw.Claim(fmt.Sprintf("p%05d", i), "a:1"))
				}
				ctx, cancel := context.WithCancel(b.Context())
				r := New(Config{Conn: s.conn(), Logger: slog.New(slog.DiscardHandler)})
				done := make(chan error, 1)
				go func() { done <- r.Run(ctx) }()
				for applied := ""; applied != testlaw.Revision; {
					<-time.After(time.Millisecond)
					if src, ok := loop.Get[*carav1.Source](r.mirror, "platform"); ok {
						applied = src.GetStatus().GetAppliedRevision()
					}
				}
				cancel()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
