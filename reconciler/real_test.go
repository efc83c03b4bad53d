package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/gc"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/internal/test/testlaw"
	"github.com/caravanserai/cara/plan"
	"github.com/caravanserai/cara/store/pebble"
)

// liveServer is the real API server with an in-memory store, the real reconciler and the real garbage collector, inside a
// synctest bubble. There is no scheduler: projects have no node, so they are deleted immediately.
type liveServer struct {
	t   *testing.T
	fs  *vfs.MemFS
	off time.Duration // how far the wall clock is from the bubble's; set while everything waits
	mu  sync.Mutex    // guards off

	// of one life of the server
	stopLoops, stopServer func()
	people                *grpc.ClientConn
	projects              carav1.ProjectServiceClient
	sources               carav1.SourceServiceClient
	apply                 carav1.ApplyServiceClient
	events                carav1.EventServiceClient
	loops                 carav1.SourceServiceClient // as `sources`
	rogue                 carav1.ApplyServiceClient  // as a second reconciler that nobody knows of
	view                  *loop.Mirror
	decide                func(plan.Input) plan.Plan
	watch                 func([]loop.Change)
}

// runReal calls test with everything running and a source `platform` that was never read.
func runReal(t *testing.T, test func(t *testing.T, r *liveServer)) {
	synctest.Test(t, func(t *testing.T) {
		r := &liveServer{t: t, fs: vfs.NewMem(), decide: plan.Diff}
		r.start()
		r.makeSource("platform")
		test(t, r)
		r.stop()
	})
}

func (r *liveServer) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.off)
}

// step sets the wall clock.
func (r *liveServer) step(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off += d
}

// start starts a server and its loops over what the store has.
func (r *liveServer) start() {
	r.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		quiet = slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	st, err := pebble.Open(pebble.Config{Dir: "store", FS: r.fs, CacheBytes: 1 << 20, MemTableBytes: 1 << 20, Logger: quiet})
	r.must(err)
	s, err := apiserver.New(apiserver.Config{Store: st, Authenticator: anybody{}, ClusterID: "test", Now: r.now, Logger: quiet})
	r.must(err)
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	r.people, err = grpc.NewClient("passthrough:server", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(someToken{}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.dial(ctx) }))
	r.must(err)
	r.projects, r.sources = carav1.NewProjectServiceClient(r.people), carav1.NewSourceServiceClient(r.people)
	r.apply, r.events = carav1.NewApplyServiceClient(r.people), carav1.NewEventServiceClient(r.people)
	inside := func(name string) grpc.ClientConnInterface {
		conn, err := s.Client(name)
		r.must(err)
		return conn
	}
	r.loops, r.rogue = carav1.NewSourceServiceClient(inside("sources")), carav1.NewApplyServiceClient(inside("reconciler"))
	r.view = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(inside("reconciler")), Logger: quiet, OnChange: r.saw,
		Kinds: []string{api.KindSource, api.KindClaim, api.KindProject, api.KindOverride, api.KindTombstone},
	})
	rec := New(Config{Conn: inside("reconciler"), Logger: quiet, Now: r.now})
	rec.decide = r.decide
	var work sync.WaitGroup
	loopCtx, stopLoops := context.WithCancel(ctx)
	for name, run := range map[string]func(context.Context) error{
		"reconciler": rec.Run, "gc": gc.New(gc.Config{Conn: inside("gc"), Logger: quiet, Now: r.now}).Run, "view": r.view.Run,
	} {
		work.Go(func() {
			if err := run(loopCtx); err != nil && loopCtx.Err() == nil {
				r.t.Errorf("%s: %v", name, err)
			}
		})
	}
	r.stopLoops = func() { stopLoops(); work.Wait() }
	r.stopServer = func() {
		if err := r.people.Close(); err != nil {
			r.t.Errorf("close connection: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("server: %v", err)
		}
		if err := st.Close(); err != nil {
			r.t.Errorf("store: %v", err)
		}
	}
	r.settle()
}

func (r *liveServer) stop() { r.stopLoops(); r.stopServer() }

// restart ends the server and everything in it, and starts it again over the same disk.
func (r *liveServer) restart() { r.stop(); r.start() }

func (r *liveServer) saw(changes []loop.Change) {
	if r.watch != nil {
		r.watch(changes)
	}
}

func (r *liveServer) settle() { r.pass(2 * time.Second) }

func (r *liveServer) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (r *liveServer) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *liveServer) makeSource(name string, change ...func(*carav1.SourceSpec)) {
	r.t.Helper()
	spec := &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}}
	for _, c := range change {
		c(spec)
	}
	_, err := r.sources.PutSource(r.t.Context(), &carav1.PutSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: name}, Spec: spec,
	}})
	r.must(err)
	r.settle()
}

func (r *liveServer) source(name string) *carav1.Source {
	s, _ := loop.Get[*carav1.Source](r.view, name)
	return s
}

func (r *liveServer) project(name string) *carav1.Project {
	p, _ := loop.Get[*carav1.Project](r.view, name)
	return p
}

func (r *liveServer) claim(name string) *carav1.Claim {
	c, _ := loop.Get[*carav1.Claim](r.view, name)
	return c
}

// publish makes the claims all that a source declares at a revision, as `sources` does, with the head's own touches.
func (r *liveServer) publish(source, rev string, head func(*carav1.Snapshot), claims ...*carav1.Claim) {
	r.t.Helper()
	src := r.source(source)
	snapshot := &carav1.Snapshot{
		Revision: rev, Sequence: src.GetStatus().GetSnapshot().GetSequence() + 1, Complete: true,
		Token: src.GetStatus().GetRequestedToken(), Author: "Ada", Subject: "make it so",
	}
	if head != nil {
		head(snapshot)
	}
	req := &carav1.PublishSnapshotRequest{Source: source, SourceUid: src.GetMetadata().GetUid(), Head: snapshot}
	declared := map[string]bool{}
	for _, c := range claims {
		name := c.Spec.Project.Metadata.Name
		declared[name] = true
		c.Spec.Revision, c.Spec.Author, c.Spec.Subject = rev, "Ada", "make it so"
		if old := r.claim(source + "/" + name); old.GetSpec().GetPresent() && old.Spec.Hash == c.Spec.Hash && old.Spec.File == c.Spec.File && old.Spec.Held == c.Spec.Held {
			continue
		}
		req.Upserts = append(req.Upserts, c.Spec)
	}
	for _, old := range loop.AllPrefix[*carav1.Claim](r.view, source+"/") {
		if name := old.Spec.Project.Metadata.Name; old.Spec.Present && !declared[name] {
			req.Absent = append(req.Absent, name)
		}
	}
	ctx, cancel := context.WithCancel(r.t.Context()) // or a finalizer would, from outside of the bubble
	defer cancel()
	stream, err := r.loops.PublishSnapshot(ctx)
	r.must(err)
	r.must(stream.Send(req))
	_, err = stream.CloseAndRecv()
	r.must(err)
}

// push publishes for platform and lets it happen.
func (r *liveServer) push(rev string, claims ...*carav1.Claim) {
	r.t.Helper()
	r.publish("platform", rev, nil, claims...)
	r.settle()
}

// fails reports for a source that it cannot be read, as `sources` does, or with an empty reason that it can.
func (r *liveServer) fails(source, reason string) {
	r.t.Helper()
	c := &carav1.Condition{Type: api.CondFetchFailed, Status: api.StatusFalse, Reason: "Read"}
	if reason != "" {
		c = &carav1.Condition{Type: api.CondFetchFailed, Status: api.StatusTrue, Reason: reason, Message: "it is not there"}
	}
	_, err := r.loops.UpdateSourceStatus(r.t.Context(), &carav1.UpdateSourceStatusRequest{
		Name: source, Uid: r.source(source).GetMetadata().GetUid(), Conditions: []*carav1.Condition{c},
	})
	r.must(err)
	r.settle()
}

// byHand is a person's apply.
func (r *liveServer) byHand(p *carav1.Project, terms *carav1.OverrideTerms) error {
	out, err := r.apply.Apply(r.t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(p)}, Override: terms})
	r.settle()
	if err != nil {
		return err
	}
	if problem := out.Results[0].Problem; problem != nil {
		return fmt.Errorf("%s", problem.Detail)
	}
	return nil
}

// behindItsBack changes a project's declaration in the store, bypassing all checks.
func (r *liveServer) behindItsBack(p *carav1.Project) {
	r.t.Helper()
	out, err := r.rogue.Apply(r.t.Context(), &carav1.ApplyRequest{Source: "platform", Objects: []*carav1.Object{api.Wrap(p)}})
	r.must(err)
	if problem := out.Results[0].Problem; problem != nil {
		r.t.Fatal(problem.Detail)
	}
	r.settle()
}

// wantProjects compares what there is with lines of `name image owner`.
func (r *liveServer) wantProjects(want ...string) {
	r.t.Helper()
	var have []string
	for _, p := range loop.All[*carav1.Project](r.view) {
		have = append(have, fmt.Sprintf("%s %s %s", p.Metadata.Name, p.Spec.Services[0].Image, api.OrNobody(p.Metadata.Owner)))
	}
	if d := cmp.Diff(want, have); d != "" {
		r.t.Errorf("projects (-want +got):\n%s", d)
	}
}

// wantState checks what the source's status says of a project, as `caractrl describe source` shows it.
func (r *liveServer) wantState(claim, state, says string) {
	r.t.Helper()
	if s := r.claim(claim).GetStatus(); s.GetState() != state || !strings.Contains(s.GetMessage(), says) {
		r.t.Errorf("%s is %q: %q, want %q saying %q", claim, s.GetState(), s.GetMessage(), state, says)
	}
}

// wantCondition checks a condition of a source; status empty: it is absent or False.
func (r *liveServer) wantCondition(source, typ, status, says string) {
	r.t.Helper()
	c := api.FindCondition(r.source(source).GetStatus().GetConditions(), typ)
	if c.GetStatus() != status && (status != "" || c.GetStatus() != api.StatusFalse) || !strings.Contains(c.GetReason()+": "+c.GetMessage(), says) {
		r.t.Errorf("condition %s of %s is %q %q %q, want %q saying %q", typ, source, c.GetStatus(), c.GetReason(), c.GetMessage(), status, says)
	}
}

// wantEvent checks that a person can read of something that happened.
func (r *liveServer) wantEvent(kind, name, reason, says string) {
	r.t.Helper()
	list, err := r.events.ListEvents(r.t.Context(), &carav1.ListEventsRequest{Kind: kind, Name: name})
	r.must(err)
	if !slices.ContainsFunc(list.Items, func(e *carav1.Event) bool { return e.Reason == reason && strings.Contains(e.Message, says) }) {
		var have []string
		for _, e := range list.Items {
			have = append(have, e.Reason+": "+e.Message)
		}
		r.t.Errorf("no event %s of %s %s saying %q, there are:\n%s", reason, kind, name, says, strings.Join(have, "\n"))
	}
}

// wantQuiet checks that two more resyncs write nothing.
func (r *liveServer) wantQuiet() {
	r.t.Helper()
	r.wantNothingPlanned("platform")
	r.pass(time.Minute) // until the view has heard of what is not its own, such as events
	before := r.view.Revision()
	r.pass(11 * time.Minute)
	if after := r.view.Revision(); after != before {
		r.t.Errorf("an unchanged pass wrote: revision %d is %d now", before, after)
		list, err := r.events.ListEvents(r.t.Context(), &carav1.ListEventsRequest{})
		r.must(err)
		for _, e := range list.Items[max(0, len(list.Items)-3):] {
			r.t.Logf("told last: %s %s %s, %d times until %s", e.Object.Name, e.Reason, e.Message, e.Count, e.LastTime.AsTime())
		}
	}
}

// wantNothingPlanned checks that the server's plan of a source has nothing that the reconciler leaves undone.
func (r *liveServer) wantNothingPlanned(source string) {
	r.t.Helper()
	p, err := r.sources.PlanSource(r.t.Context(), &carav1.PlanSourceRequest{Name: source})
	if api.IsNotFound(err) {
		return
	}
	r.must(err)
	for _, s := range p.Steps {
		refused := s.ClaimState == api.ClaimRefused || s.ClaimState == api.ClaimNotAllowed || s.ClaimState == api.ClaimStalled
		if s.Action != api.PlanKeep && !refused {
			r.t.Errorf("the server would %s %s (%s), and the reconciler is at rest", s.Action, s.Project, s.Reason)
		}
	}
}

// someToken is sent with each call, because the server does not authenticate a call without a token.
type someToken struct{}

func (someToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer test"}, nil
}

func (someToken) RequireTransportSecurity() bool { return false }

// anybody is an administrator.
type anybody struct{}

func (anybody) Authenticate(context.Context) (identity.Actor, error) {
	return identity.Actor{Name: "user/ada", Role: api.RoleAdmin}, nil
}

// pipes is a listener whose connections never leave the process.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return mine, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// watchProjects notes what comes and goes, in order.
func (r *liveServer) watchProjects(order *[]string) {
	r.watch = func(changes []loop.Change) {
		for _, c := range changes {
			switch p, is := c.Object().(*carav1.Project); {
			case is && c.New == nil:
				*order = append(*order, "-"+p.Metadata.Name)
			case is && c.Old == nil:
				*order = append(*order, "+"+p.Metadata.Name)
			}
		}
	}
}

// TestRealSourceThatIsNarrowed: a project that a source may no longer have is rejected, with the reason in its claim. It
// keeps running and is not pruned. When the source may have it again, the claim is applied again.
func TestRealSourceThatIsNarrowed(t *testing.T) {
	runReal(t, func(t *testing.T, r *liveServer) {
		allow := func(a *carav1.SourceAllow) {
			r.makeSource("platform", func(s *carav1.SourceSpec) { s.Allow = a })
		}
		uses := func(c *carav1.Claim) {
			c.Spec.Project.Spec.ImagePullSecrets = []string{"registry"}
		}
		allow(&carav1.SourceAllow{Secrets: []string{"registry"}})
		r.push("r1", testlaw.Claim("web", "a:1", uses), testlaw.Claim("db", "a:1"))
		if got := r.claim("platform/web").GetStatus(); got.GetState() != api.ClaimApplied {
			t.Fatalf("claim %v", got)
		}
		uid := r.project("web").GetMetadata().GetUid()

		narrowed := func(when string) {
			t.Helper()
			got := r.claim("platform/web").GetStatus()
			if got.GetState() != api.ClaimNotAllowed || !strings.Contains(got.GetMessage(), `source "platform" may not use Secret "registry"; add it to spec.allow.secrets of the source`) {
				t.Errorf("%s: claim %v", when, got)
			}
			p := r.project("web")
			if p.GetMetadata().GetUid() != uid || p.GetMetadata().GetDeletionTimestamp() != nil {
				t.Errorf("%s: project %v", when, p)
			}
			if got := r.claim("platform/db").GetStatus().GetState(); got != api.ClaimApplied {
				t.Errorf("%s: the other claim is %s", when, got)
			}
			ready := api.FindCondition(r.source("platform").GetStatus().GetConditions(), api.CondReady)
			if ready.GetStatus() != api.StatusFalse || ready.GetReason() != api.ClaimNotAllowed {
				t.Errorf("%s: %v", when, ready)
			}
		}
		allow(nil)
		narrowed("after the source was narrowed")
		r.restart()
		narrowed("after a restart")
		r.pass(11 * time.Minute)
		narrowed("after the resync")
		r.push("r2", testlaw.Claim("web", "a:1", uses), testlaw.Claim("db", "a:1"))
		narrowed("after the next commit")

		allow(&carav1.SourceAllow{Secrets: []string{"reg*"}})
		if got := r.claim("platform/web").GetStatus(); got.GetState() != api.ClaimApplied || got.GetMessage() != "" {
			t.Errorf("allowed again: %v", got)
		}
		if p := r.project("web"); p.GetMetadata().GetUid() != uid || p.GetMetadata().GetGeneration() != 1 {
			t.Errorf("allowed again: the project was written: %v", p.GetMetadata())
		}
	})
}

// TestRealHeirThatIsNotAllowed: a source that may not have a project does not keep it alive by declaring it.
func TestRealHeirThatIsNotAllowed(t *testing.T) {
	runReal(t, func(t *testing.T, r *liveServer) {
		r.makeSource("other", func(s *carav1.SourceSpec) { s.Allow = &carav1.SourceAllow{Names: []string{"shop-*"}} })
		r.push("r1", testlaw.Claim("web", "a:1"), testlaw.Claim("db", "a:1"))
		r.publish("other", "o1", nil, testlaw.Claim("web", "evil:1", func(c *carav1.Claim) { c.Spec.Source = "other" }))
		r.settle()
		r.push("r2", testlaw.Claim("db", "a:1"))
		r.settle()
		r.settle()
		if p := r.project("web"); p != nil {
			t.Errorf("the project was kept: %v", p)
		}
		if got := r.claim("other/web").GetStatus(); got.GetState() != api.ClaimNotAllowed {
			t.Errorf("the other claim: %v", got)
		}
	})
}
