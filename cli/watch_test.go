package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// flow is an output that somebody waits on.
type flow struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func newFlow() *flow { return &flow{changed: make(chan struct{}, 1)} }

func (f *flow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
	return f.buf.Write(p)
}

func (f *flow) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.buf.String()
}

// squeezed makes one space of several, so that a test can look for a row without its column widths.
func squeezed(s string) string {
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

// until waits until the output has s, whatever the widths of the columns.
func (f *flow) until(t *testing.T, s string) {
	t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	for !strings.Contains(squeezed(f.String()), squeezed(s)) {
		select {
		case <-f.changed:
		case <-limit.C:
			t.Fatalf("waited for %q, have\n%s", s, f.String())
		}
	}
}

// start runs a command that stays; stop interrupts it and returns its exit code.
func (h *testServer) start(t *testing.T, args ...string) (out *flow, stop func() int) {
	t.Helper()
	out = newFlow()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		a := &app{Streams: Streams{In: strings.NewReader(""), Out: out, Err: out}, version: "v1", now: h.clock.now}
		done <- run(ctx, append([]string{"--server", h.url, "--token-file", h.tokenFile()}, args...), a)
	}()
	stop = sync.OnceValue(func() int { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	return out, stop
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *testServer) apply(t *testing.T, name, image string) {
	t.Helper()
	r := h.ctl(t.Context(), `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"`+name+`","labels":{"app":"`+name+`"}},
		"spec":{"services":[{"name":"web","image":"`+image+`"}]}}`, "apply", "-f", "-")
	if r.code != 0 {
		t.Fatalf("apply %s: %s", name, r.err)
	}
}

func TestWatchShowsWhatThereIsThenEachChange(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	h.apply(t, "web", "nginx:1")
	h.apply(t, "a-longer-name", "nginx:1")
	out, stop := h.start(t, "get", "projects", "-w")
	out.until(t, "web ")
	must(t, h.schedule(t.Context(), "web", "Bind", "n1", ""))
	out.until(t, "web             Scheduled")
	must(t, h.report(t.Context(), "web", "Running", "Running", "Ready", ""))
	out.until(t, "Running")
	h.apply(t, "late", "nginx:1")
	out.until(t, "late")
	if r := h.ctl(t.Context(), "", "delete", "project", "late"); r.out != "project \"late\" deleted\n" {
		t.Fatalf("delete: %+v", r)
	}
	out.until(t, "(gone)")
	if code := stop(); code != 0 {
		t.Errorf("an interrupted watch ended with %d", code)
	}
	want := `NAME                       PHASE         READY   NODE           CONDITIONS             SOURCE             EXPIRES   AGE
a-longer-name              Pending       0/1     -              Waiting                user/admin         -         0s
web                        Pending       0/1     -              Waiting                user/admin         -         0s
web                        Scheduled     0/1     n1             Scheduled              user/admin         -         0s
web                        Running       1/1     n1             -                      user/admin         -         0s
late                       Pending       0/1     -              Waiting                user/admin         -         0s
late                       (gone)        0/1     -              Waiting                user/admin         -         0s
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWatchShowsHowOldAStatusIs(t *testing.T) {
	h := newTestServer(t)
	for _, n := range []string{"n1", "n2"} {
		must(t, h.node(t.Context(), n))
	}
	for name, node := range map[string]string{"web": "n1", "api": "n2"} {
		h.apply(t, name, "nginx:1")
		must(t, h.schedule(t.Context(), name, "Bind", node, ""))
		must(t, h.report(t.Context(), name, "Running", "Running", "Ready", ""))
	}
	out, _ := h.start(t, "get", "projects", "-w")
	nodes, _ := h.start(t, "get", "nodes", "-w")
	other, _ := h.start(t, "get", "projects", "-w", "--node", "n2", "-o", "name")
	out.until(t, "web ")
	other.until(t, "project/api\n")
	nodes.until(t, "n2 ")
	must(t, h.silent(t.Context(), "n1"))
	out.until(t, "web    Unknown (last seen 0s ago)")
	nodes.until(t, "n1     NotReady   1 ") // with its projects counted
	must(t, h.node(t.Context(), "n1"))
	waitFor(t, func() bool { return strings.Count(squeezed(out.String()), "web Running") == 2 })
	late, _ := h.start(t, "get", "projects", "-w")
	must(t, h.silent(t.Context(), "n1"))
	late.until(t, "Unknown (last seen")
	again, _ := h.start(t, "get", "projects", "-w")
	again.until(t, "web    Unknown (last seen")
	if strings.Count(out.String(), "api ") != 1 || other.String() != "project/api\n" {
		t.Errorf("a project of another node is told of again:\n%s%s", out, other)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	limit, tick := time.After(60*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not come")
		}
	}
}

func TestWatchOfSome(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	h.apply(t, "web", "nginx:1")
	h.apply(t, "api", "nginx:1")
	named, _ := h.start(t, "get", "project/web", "-w", "-o", "name")
	waiting, _ := h.start(t, "get", "p", "--phase", "Pending", "-w")
	labelled, _ := h.start(t, "get", "p", "-l", "app=api", "-w", "-o", "jsonpath={.status.phase}")
	events, _ := h.start(t, "get", "events", "--for", "project/api", "-w")
	named.until(t, "project/web\n")
	waiting.until(t, "web")
	labelled.until(t, "Pending\n")
	events.until(t, "Created")
	must(t, h.schedule(t.Context(), "web", "Bind", "n1", ""))
	must(t, h.schedule(t.Context(), "api", "Bind", "n1", ""))
	named.until(t, "project/web\nproject/web\n")
	waiting.until(t, "api    Scheduled") // it left the filter, and is not gone
	labelled.until(t, "Pending\nScheduled\n")
	events.until(t, "assigned to n1")
	if s := named.String() + events.String(); strings.Contains(s, "project/api\nproject") || strings.Contains(events.String(), "project/web") {
		t.Errorf("watches show what was not asked for:\n%s", s)
	}
	if strings.Contains(waiting.String(), "(gone)") {
		t.Errorf("what left the filter is shown as gone:\n%s", waiting)
	}
}

func TestWatchEndsWithTheServer(t *testing.T) {
	h := newTestServer(t)
	h.apply(t, "web", "nginx:1")
	out, stop := h.start(t, "get", "projects", "-w")
	out.until(t, "web ")
	must(t, h.stop())
	out.until(t, "error: ")
	if code := stop(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestApplyWaitFollowsTheWay(t *testing.T) {
	h := newTestServer(t)
	must(t, h.node(t.Context(), "n1"))
	h.apply(t, "web", "nginx:1")
	must(t, h.schedule(t.Context(), "web", "Bind", "n1", ""))
	must(t, h.report(t.Context(), "web", "Running", "Running", "Ready", ""))
	manifest := t.TempDir() + "/web.json"
	writeFile(t, manifest, `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"web"},"spec":{"services":[{"name":"web","image":"nginx:2"}]}}`)
	out, _ := h.start(t, "apply", "-f", manifest, "--wait")
	out.until(t, "project/web configured\nproject/web Scheduled") // what ran before does not count
	must(t, h.report(t.Context(), "web", "", "Pulling", "Pulling", "pulling nginx:2: 1 of 9 MB"))
	out.until(t, "project/web Scheduled: pulling nginx:2: 1 of 9 MB\n")
	must(t, h.report(t.Context(), "web", "Running", "Running", "Ready", ""))
	out.until(t, "project/web Running\n")
}

// Two people request one after the other, and one reconciliation answers both.
func TestReconcileWaitsForItsToken(t *testing.T) {
	h := newTestServer(t)
	if r := h.ctl(t.Context(), "", "create", "source", "dir", "platform", t.TempDir()); r.code != 0 {
		t.Fatal(r.err)
	}
	tokens, _ := h.start(t, "get", "sources", "-w", "-o", "jsonpath=token:{.status.requestedToken}")
	tokens.until(t, "token:\n")
	first, stopFirst := h.start(t, "reconcile", "platform")
	tokens.until(t, "token:r0000000000000000001\n")
	second, stopSecond := h.start(t, "reconcile", "platform")
	tokens.until(t, "token:r0000000000000000002\n")
	must(t, h.sourceSays(t.Context(), "platform", api.CondReady, api.StatusTrue, "applied"))
	first.until(t, "source/platform is at ")
	second.until(t, "source/platform is at ")
	if codes := []int{stopFirst(), stopSecond()}; !slices.Equal(codes, []int{0, 0}) {
		t.Errorf("exit codes %d: %s%s", codes, first, second)
	}
	must(t, h.sourceSays(t.Context(), "platform", api.CondFetchFailed, api.StatusTrue, "the directory is not there"))
	r := h.ctl(t.Context(), "", "reconcile", "platform", "--no-wait")
	if r.code != 0 || !strings.Contains(r.out, "source/platform is being checked") {
		t.Errorf("reconcile --no-wait: %+v", r)
	}
}

func TestWaitingDecides(t *testing.T) {
	event := func(typ, name, phase string, observed int32, conds ...*carav1.Condition) *carav1.ProjectEvent {
		return &carav1.ProjectEvent{Type: typ, Object: &carav1.Project{
			Metadata: &carav1.ObjectMeta{Name: name, Generation: 2},
			Status:   &carav1.ProjectStatus{Phase: phase, ObservedGeneration: observed, Conditions: conds},
		}}
	}
	unfit := &carav1.Condition{Type: api.CondScheduled, Status: api.StatusFalse, Reason: "Unschedulable", Message: "0 of 2 nodes fit"}
	stays := func(generation int32) *carav1.Condition {
		return &carav1.Condition{Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonUpdateFailed, ObservedGeneration: generation}
	}
	bookmark := &carav1.ProjectEvent{Type: "Bookmark"}
	tests := []struct {
		name   string
		events []*carav1.ProjectEvent
		open   int // how many are still waited for
		code   int // at the end of the time
	}{
		{"both run", []*carav1.ProjectEvent{event("Added", "a", "Running", 2), event("Added", "b", "Running", 2)}, 0, 0},
		{"of an older generation", []*carav1.ProjectEvent{event("Added", "a", "Running", 2), event("Added", "b", "Running", 1)}, 1, term.ExitTimeout},
		{"none fits", []*carav1.ProjectEvent{event("Added", "a", "Running", 2), event("Added", "b", "Pending", 0, unfit)}, 1, term.ExitUnschedulable},
		{"one does not fit, one is slow", []*carav1.ProjectEvent{event("Added", "a", "Scheduled", 0), event("Added", "b", "Pending", 0, unfit)}, 2, term.ExitTimeout},
		{"one failed, one runs", []*carav1.ProjectEvent{event("Added", "a", "Failed", 2), event("Added", "b", "Running", 2)}, 0, term.ExitFailed},
		{"one failed, one does not fit", []*carav1.ProjectEvent{event("Added", "a", "Failed", 2), event("Added", "b", "Pending", 0, unfit)}, 1, term.ExitFailed},
		{"an update failed", []*carav1.ProjectEvent{event("Added", "a", "Scheduled", 2, stays(2)), event("Added", "b", "Running", 2)}, 0, term.ExitFailed},
		{"an older update failed", []*carav1.ProjectEvent{event("Added", "a", "Scheduled", 1, stays(1)), event("Added", "b", "Running", 2)}, 1, term.ExitTimeout},
		{"gone before the watch", []*carav1.ProjectEvent{event("Added", "a", "Running", 2), bookmark}, 0, 1},
		{"gone during the watch", []*carav1.ProjectEvent{event("Added", "a", "Running", 2), event("Deleted", "b", "Terminated", 2)}, 0, 1},
		{"others do not matter", []*carav1.ProjectEvent{event("Added", "x", "Failed", 2), event("Added", "a", "Running", 2), event("Added", "b", "Running", 2), bookmark}, 0, 0},
	}
	job := func(phase, state string, serves bool) *carav1.ProjectEvent {
		e := event("Modified", "a", phase, 2)
		e.Object.Spec = &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "migrate", RestartPolicy: api.RestartNever}}}
		if serves {
			e.Object.Spec.Ingress = []*carav1.Ingress{{Target: &carav1.IngressTarget{Service: "migrate"}}}
		}
		e.Object.Status.Services = []*carav1.ServiceStatus{{Name: "migrate", State: state}}
		return e
	}
	b := event("Added", "b", "Running", 2)
	tests = append(tests, []struct {
		name   string
		events []*carav1.ProjectEvent
		open   int
		code   int
	}{
		{"a job runs", []*carav1.ProjectEvent{b, job("Running", "Running", false)}, 1, term.ExitTimeout},
		{"a job has completed", []*carav1.ProjectEvent{b, job("Running", "Running", false), job("Running", "Completed", false)}, 0, 0},
		{"a job fails after a while", []*carav1.ProjectEvent{b, job("Running", "Running", false), job("Failed", "Failed", false)}, 0, term.ExitFailed},
		{"a service that may end, and serves", []*carav1.ProjectEvent{b, job("Running", "Running", true)}, 0, 0},
	}...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWaiting([]string{"a", "b"})
			for _, e := range tt.events {
				w.take(e)
			}
			var exit term.Exit
			if err := w.verdict(time.Minute, nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if len(w.open) != tt.open || exit.Code != tt.code {
				t.Errorf("%d open and code %d, want %d and %d", len(w.open), exit.Code, tt.open, tt.code)
			}
		})
	}
}

func TestOverrideTerms(t *testing.T) {
	o := overrideFlags{override: true, reason: "it burns", length: time.Hour}
	terms, err := o.terms()
	if err != nil || terms.GetFor().AsDuration() != durationpb.New(time.Hour).AsDuration() || terms.GetReason() != "it burns" {
		t.Errorf("got %v, %v", terms, err)
	}
	for _, bad := range []overrideFlags{{reason: "x"}, {override: true}, {override: true, reason: " "}, {override: true, reason: "x", length: -1}, {untilNextChange: true}} {
		if _, err := bad.terms(); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// A change that no column shows, such as a new label, adds no row.
func TestWatchShowsNoRowTwice(t *testing.T) {
	h := newTestServer(t)
	h.apply(t, "web", "nginx:1")
	out, _ := h.start(t, "get", "projects", "-w")
	out.until(t, "web ")
	labelled := `{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":"web","labels":{"team":"shop"}},"spec":{"services":[{"name":"web","image":"nginx:1"}]}}`
	if r := h.ctl(t.Context(), labelled, "apply", "-f", "-"); r.code != 0 {
		t.Fatalf("apply: %s", r.err)
	}
	h.apply(t, "later", "nginx:1")
	out.until(t, "later ")
	if n := strings.Count(out.String(), "web "); n != 1 {
		t.Errorf("web is shown %d times, want once:\n%s", n, out)
	}
}
