package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/probe"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/stream"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// Agent keeps one engine in order for one node.
type Agent struct {
	cfg          Config
	log          *slog.Logger
	engine       engine.Engine
	nodes        carav1.NodeServiceClient
	instance     string
	events       carav1.EventServiceClient
	disk         *disk
	images       *image.Book
	queue        *loop.Queue
	reports      *reporter
	pulls        *image.Puller
	collector    *image.Collector
	streams      *stream.Server
	probes       *probe.Prober
	endpoints    *Endpoints
	calls        chan struct{}               // a slot for each engine call that changes something
	stops        *semaphore.Weighted         // a slot for each container that is told to stop
	health       health                      // of the engine
	kept         health                      // of the disk that keeps the assignments
	machine      atomic.Pointer[engine.Info] // what the engine said of its machine; nil: not since it came back
	known        sync.Once                   // guards the close of machineKnown
	machineKnown chan struct{}               // closed once the engine has said what the machine is
	relist       chan struct{}               // asks for a list of the engine, now
	beat         chan struct{}               // asks for a heartbeat, now
	nobody       chan struct{}               // says that nobody listens where the server should be
	counts       counts

	mu        sync.Mutex
	tasks     map[string]*task
	listeners map[chan struct{}]string // kicked when something happened to the project; see listen
	connected bool                     // a stream to our cluster's server is open
	synced    bool                     // the server has named all that is ours on the stream that is open
	syncedAt  time.Time
	left      []*carav1.Released // what the next heartbeat says to be gone
}

// task is one project at this node.
type task struct {
	// want is what it should be; guarded by Agent.mu. The worker reads it anew at each pass.
	want *step.Want
	// project is what want was made from, to be kept on disk; nil with a quiet want.
	project *carav1.Project
	// held: read from disk and not yet confirmed; guarded by Agent.mu.
	held bool
	// older is what the server named with an epoch below the one in force, on the stream that is open; guarded by Agent.mu.
	older *carav1.Assignment
	// hinted: something happened since the last look began; guarded by Agent.mu.
	hinted bool
	// settled is the want for which the last look found nothing to do, until due (zero: until something happens); nil
	// where that is not known. Guarded by Agent.mu.
	settled *step.Want
	due     time.Time
	// Only the worker of the project uses these.
	work workspace
}

// New returns an agent that does nothing until Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger.With("node", cfg.NodeName), engine: cfg.Engine,
		nodes: carav1.NewNodeServiceClient(cfg.Conn), instance: uuid.NewString(),
		events: carav1.NewEventServiceClient(cfg.Conn), disk: &disk{dir: cfg.DataDir}, images: image.NewBook(cfg.DataDir),
		machineKnown: make(chan struct{}), calls: make(chan struct{}, cfg.EngineCalls), stops: semaphore.NewWeighted(int64(cfg.Stops)),
		relist: make(chan struct{}, 1), beat: make(chan struct{}, 1), nobody: make(chan struct{}, 1),
		tasks: map[string]*task{}, listeners: map[chan struct{}]string{},
	}
	a.endpoints = newEndpoints(a.hint)
	a.queue = loop.NewQueue(loop.QueueConfig{
		Name: "projects", Workers: cfg.Workers, Do: a.work, Metrics: cfg.Queues, MaxBackoff: cfg.MaxBackoff, Logger: a.log,
		Quiet: func(err error) bool { // said once, of the engine or of the disk
			return errors.Is(err, engine.ErrUnavailable) && a.health.error() != nil || errors.Is(err, errNotKept) && a.kept.error() != nil
		},
	})
	a.reports = newReporter(carav1.NewProjectServiceClient(cfg.Conn), cfg, a.log, &a.counts, a.reported)
	a.pulls = image.NewPuller(cfg.Engine, a.images, a.log, cfg.Pulls, a.hint)
	a.collector = &image.Collector{
		Engine: cfg.Engine, Book: a.images, Log: a.log, Every: cfg.CollectEvery, Above: cfg.Limits.CollectAbove, To: cfg.Limits.CollectTo,
		Disk: a.diskUsed, Assigned: a.assignedImages,
		Tell: func(ctx context.Context, message string) {
			a.tell(ctx, api.EventNormal, api.ReasonImagesCollected, message)
		},
	}
	a.streams = &stream.Server{
		Nodes: a.nodes, Engine: cfg.Engine, Node: cfg.node(), Log: a.log, Kept: stream.KeptLogsIn(filepath.Join(cfg.DataDir, "logs")),
		Want: a.wanted, Listen: a.listen, Endpoint: a.endpoints.IP,
	}
	a.probes = probe.New(cfg.Engine, cfg.ProbeEvery, a.hint)
	return a, nil
}

// Endpoints are the services of this node that may get requests.
func (a *Agent) Endpoints() *Endpoints { return a.endpoints }

// Run keeps the engine in order until ctx ends. Containers keep running after it. It fails only where the data
// directory cannot be used, or where a newer agent took this node's name over (ErrSuperseded).
func (a *Agent) Run(ctx context.Context) error {
	if err := a.load(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		a.queue.Run, a.reports.run, a.pulls.Run, a.probes.Run, a.watchEngine, a.watchMachine, a.relistLoop, a.releaseHeld, a.connect, a.collector.Run,
	} {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// load reads the assignments of the last run. They wait for the server's word, for a while.
func (a *Agent) load() error {
	kept, err := a.disk.load()
	if err != nil {
		return err
	}
	if err := a.images.Load(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range kept {
		want := step.NewWant(a.cfg.node(), k, false)
		record := a.disk.loadRecord(want.Project)
		a.tasks[want.Project] = &task{
			want: want, project: k.GetProject(), held: true, work: workspace{saved: k, record: record, noted: record},
		}
	}
	return nil
}

// releaseHeld acts on the assignments on disk once the server has been away for the grace: before, they may be of
// yesterday, and a project that has moved must not start here. Where nobody listens at the server's address there is
// nothing to wait for.
func (a *Agent) releaseHeld(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.cfg.ServerGrace):
		case <-a.nobody:
		}
		a.mu.Lock()
		naming := a.connected && !a.synced // it is about to say what is ours
		a.mu.Unlock()
		if !naming {
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	released := 0
	for name, t := range a.tasks {
		if t.held {
			t.held = false
			released++
			a.queue.Add(name)
		}
	}
	if released > 0 {
		a.log.Warn("the server is away: keeping up what was assigned last", "projects", released)
	}
	return nil
}

// assign takes an assignment in. One with an older epoch than the one in force is refused.
func (a *Agent) assign(assignment *carav1.Assignment) {
	want := step.NewWant(a.cfg.node(), assignment, true)
	log := a.log.With("project", want.Project, "epoch", want.Epoch)
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[want.Project]
	if t != nil && t.want.UID == want.UID && want.Epoch < t.want.Epoch {
		log.Warn("refused an assignment older than the one in force", "in_force", t.want.Epoch)
		t.older = nil
		if !a.synced {
			t.older = assignment
		}
		return
	}
	if t == nil {
		t = &task{}
		a.tasks[want.Project] = t
	}
	want.Remember(t.want)
	t.want, t.project, t.held, t.older = want, assignment.GetProject(), false, nil
	log.Info("assigned", "generation", want.Generation, "phase", want.Phase)
	a.queue.Add(want.Project)
}

// unassign makes a project none of ours: what runs of it is stopped. Nothing is said of it, unless the server gave an epoch:
// then that nothing is left, since another node waits for it.
func (a *Agent) unassign(project, uid string, epoch int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[project]
	switch {
	case t == nil:
		t = &task{}
		a.tasks[project] = t
	case uid != "" && t.want.UID != uid && !t.want.Quiet:
		return // a namesake took its place; Step removes what is left of the old one
	}
	if t.want == nil || !t.want.Quiet {
		a.log.Info("unassigned", "project", project)
	}
	t.want, t.project, t.held, t.older = step.Unwanted(a.cfg.node(), project, uid, epoch), nil, false, nil
	a.queue.Add(project)
}

// sync ends the server's first list: what it did not name is not ours.
func (a *Agent) sync(named map[string]bool) {
	a.mu.Lock()
	var lost []*step.Want
	for name, t := range a.tasks {
		if !named[name] {
			lost = append(lost, t.want)
		}
	}
	a.synced, a.syncedAt = true, time.Now()
	a.mu.Unlock()
	for _, w := range lost {
		if !w.Quiet { // else it was, and perhaps with an epoch
			a.unassign(w.Project, w.UID, 0)
		}
	}
	kick(a.relist)
}

// link takes in that the stream to the server is open now, or not any more.
func (a *Agent) link(connected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected, a.synced = connected, false
	for _, t := range a.tasks {
		t.older = nil
	}
}

// hint says that something may have happened to a project.
func (a *Agent) hint(project string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wake(project)
	if t := a.tasks[project]; t != nil {
		t.hinted = true
		a.queue.Add(project)
	}
}

// current returns the project's task and what it should be now; nil where there is nothing to do yet. look is false
// where nothing happened since the last look found all as wanted: what a look covers, it covers once, and the events
// of what the agent itself did are old by the time of the next. Where look is false, again is when to look: the queue keeps
// only the earliest of a key's times, and one that came before it was due must not be the last.
func (a *Agent) current(project string, now time.Time) (t *task, want *step.Want, look bool, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t = a.tasks[project]
	if t == nil || t.held {
		return nil, nil, false, 0
	}
	look = t.hinted || t.settled != t.want || !t.due.IsZero() && !now.Before(t.due)
	if look {
		t.hinted, t.settled = false, nil
	} else if !t.due.IsZero() {
		again = max(t.due.Sub(now), time.Millisecond)
	}
	return t, t.want, look, again
}

// settle remembers that a look found nothing to do.
func (a *Agent) settle(t *task, want *step.Want, now time.Time, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.settled, t.due = want, time.Time{}
	if again > 0 {
		t.due = now.Add(again)
	}
}

// release lets the server know that nothing is left of a project that another node waits for. Where this is not heard, as
// the stream breaks, the server asks again on the next.
func (a *Agent) release(want *step.Want) {
	if want.Epoch == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = append(a.left, &carav1.Released{Name: want.Project, Uid: want.UID, Epoch: want.Epoch})
	kick(a.beat)
}

// gone takes what is to be said to be gone.
func (a *Agent) gone() []*carav1.Released {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.left
	a.left = nil
	return left
}

// drop forgets a project of which nothing is left, unless it was assigned anew meanwhile.
func (a *Agent) drop(project string, want *step.Want) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[project]; t != nil && t.want == want {
		delete(a.tasks, project)
	}
}

// reported takes in that the server knows a phase now.
func (a *Agent) reported(project string, r *carav1.UpdateProjectStatusRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[project]
	if t == nil || r.GetPhase() == "" || t.want.UID != r.GetUid() || t.want.Epoch != r.GetEpoch() || t.want.Generation != r.GetObservedGeneration() {
		return
	}
	if t.want.Phase == api.PhaseTerminating && r.GetPhase() != api.PhaseTerminated {
		return
	}
	next := *t.want
	next.Phase = r.GetPhase()
	if t.settled == t.want {
		t.settled = &next // what was found then holds: it is what was reported
	}
	t.want = &next
	if t.project != nil {
		p := proto.CloneOf(t.project)
		p.Status.Phase, p.Status.ObservedGeneration = r.GetPhase(), r.GetObservedGeneration()
		if r.GetPhase() == api.PhaseRunning {
			p.Status.Services, p.Status.MovedFrom = r.GetServices(), ""
			next.PinAnew(p.GetStatus())
		}
		for _, c := range r.GetConditions() {
			p.Status.Conditions, _ = api.SetCondition(p.GetStatus().GetConditions(), c, time.Now())
		}
		t.project = p
	}
	a.wake(project)
	a.queue.Add(project) // to have it on disk: a project that failed must not start anew with the next agent
}

// assignedImages are those that projects of this node name, whether they run or not.
func (a *Agent) assignedImages() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, t := range a.tasks {
		for _, svc := range t.want.Spec.GetServices() {
			out = append(out, svc.GetImage(), t.want.ImageOf(svc))
		}
	}
	return out
}

// kick wakes whoever waits at c; one that is awake already hears it next.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wanted is what a project should be on this node; nil where it is none of ours.
func (a *Agent) wanted(project string) *step.Want {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[project]; t != nil {
		return t.want
	}
	return nil
}

// listen returns a channel that is kicked when something may have happened to a project.
func (a *Agent) listen(project string) (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners[c] = project
	return c, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.listeners, c)
	}
}

// wake kicks who listens to a project; mu is held.
func (a *Agent) wake(project string) {
	for c, name := range a.listeners {
		if name == project {
			kick(c)
		}
	}
}
