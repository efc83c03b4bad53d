package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// Config configures a Scheduler.
type Config struct {
	// Conn is the connection to the API, with the identity `system/scheduler`.
	Conn   grpc.ClientConnInterface
	Logger *slog.Logger
	// Metrics is optional.
	Metrics *loop.Metrics
	// Strategy defaults to Spread.
	Strategy Strategy
	// HeartbeatTimeout is how long a node may send no heartbeat. The default is 20 s.
	HeartbeatTimeout time.Duration
	// AbandonAfter is how long a Terminating project waits for a lost node. The default is 10 min.
	AbandonAfter time.Duration
	// Workers is the number of concurrent workers. The default is 192: enough to fill the next calls while others are written.
	Workers int
}

// Validate checks the configuration.
func (c Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("scheduler: Conn is required")
	case c.Logger == nil:
		return errors.New("scheduler: Logger is required")
	case c.Strategy != "" && c.Strategy != Spread && c.Strategy != Binpack:
		return fmt.Errorf("scheduler: strategy %q: want %s or %s", c.Strategy, Spread, Binpack)
	case c.HeartbeatTimeout < 0 || c.AbandonAfter < 0 || c.Workers < 0:
		return errors.New("scheduler: times and workers must not be negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.Strategy = cmp.Or(c.Strategy, Spread)
	c.HeartbeatTimeout = cmp.Or(c.HeartbeatTimeout, 20*time.Second)
	c.AbandonAfter = cmp.Or(c.AbandonAfter, 10*time.Minute)
	c.Workers = cmp.Or(c.Workers, (writers-1)*maxBatch)
	return c
}

// Scheduler decides where projects run.
type Scheduler struct {
	cfg      Config
	projects carav1.ProjectServiceClient
	nodes    carav1.NodeServiceClient
	writer   writer
	mirror   *loop.Mirror
	queue    *loop.Queue
	started  time.Time // set by Run: no node counts as lost before one timeout after it
	memory
}

// New returns a Scheduler. It does nothing until Run.
func New(cfg Config) *Scheduler {
	cfg = cfg.withDefaults()
	s := &Scheduler{
		cfg: cfg, projects: carav1.NewProjectServiceClient(cfg.Conn), nodes: carav1.NewNodeServiceClient(cfg.Conn),
		memory: newMemory(),
	}
	s.writer = writer{projects: s.projects, orders: make(chan *order)}
	s.mirror = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(cfg.Conn), Kinds: []string{api.KindProject, api.KindNode},
		OnChange: s.changed, Logger: cfg.Logger,
	})
	s.queue = loop.NewQueue(loop.QueueConfig{
		Name: "scheduler", Workers: cfg.Workers, Do: s.pass, Metrics: cfg.Metrics, MinBackoff: 50 * time.Millisecond, MaxBackoff: 30 * time.Second, Logger: cfg.Logger,
	})
	return s
}

// Run works until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	s.started = time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.mirror.Run(ctx) })
	for range writers {
		group.Go(func() error { return s.writer.run(ctx) })
	}
	group.Go(func() error {
		if err := s.mirror.WaitSynced(ctx); err != nil {
			return nil // ctx ended before the first complete list
		}
		return s.queue.Run(ctx)
	})
	return group.Wait()
}

// changed updates the ledger and queues what needs a pass.
func (s *Scheduler) changed(changes []loop.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	room := false
	for _, c := range changes {
		name := api.Meta(c.Object()).GetName()
		switch c.Object().(type) {
		case *carav1.Project:
			room = s.projectChanged(name, c) || room
		case *carav1.Node:
			s.nodeChanged(name, c)
			room = true
		}
	}
	if room {
		for node := range s.ledger.drains {
			s.queue.Add(nodeKey(node))
		}
		for project := range s.waiting {
			s.queue.Add(projectKey(project))
		}
	}
}

// projectChanged reports whether the change may have made room for other projects. s.mu is held.
func (s *Scheduler) projectChanged(name string, c loop.Change) (room bool) {
	p, _ := c.New.(*carav1.Project)
	for _, node := range s.drainsOf(c) {
		s.queue.Add(nodeKey(node))
	}
	s.noteMove(name, p)
	room = s.ledger.setProject(name, p, api.RevisionOf(p))
	if p == nil {
		delete(s.waiting, name)
	}
	if p != nil && interesting(p) {
		s.queue.Add(projectKey(name))
	}
	return room
}

// nodeChanged queues the node and its projects. s.mu is held.
func (s *Scheduler) nodeChanged(name string, c loop.Change) {
	n, _ := c.New.(*carav1.Node)
	s.ledger.setNode(name, n)
	s.noteNode(name, n, time.Now())
	s.heardAgain(time.Now())
	s.queue.Add(nodeKey(name))
	for _, project := range s.ledger.projectsOn(name) {
		s.queue.Add(projectKey(project))
	}
}

// interesting reports whether a changed project may need a decision.
func interesting(p *carav1.Project) bool {
	if requested(p) {
		return true
	}
	switch p.GetStatus().GetPhase() {
	case api.PhasePending, api.PhaseScheduled, api.PhaseTerminating:
		return true
	}
	return false
}

func (s *Scheduler) pass(ctx context.Context, key string) (time.Duration, error) {
	kind, name, _ := strings.Cut(key, "/")
	if kind == api.KindNode {
		again, err := s.drain(ctx, name)
		if err != nil {
			return 0, err
		}
		next, err := s.passNode(ctx, name)
		return earlier(again, next), err
	}
	p, ok := loop.Get[*carav1.Project](s.mirror, name)
	if !ok {
		return 0, nil
	}
	why, left := moves{s}.obsolete(p)
	if why != "" {
		return 0, moves{s}.answerMove(ctx, p, "", why)
	}
	again, err := s.passProject(ctx, p)
	return earlier(left, again), err
}

func (s *Scheduler) passProject(ctx context.Context, p *carav1.Project) (time.Duration, error) {
	if requested(p) {
		return 0, moves{s}.decideMove(ctx, p)
	}
	switch p.GetStatus().GetPhase() {
	case api.PhasePending:
		return s.place(ctx, p)
	case api.PhaseScheduled, api.PhaseRunning:
		return s.keep(ctx, p)
	case api.PhaseTerminating:
		return s.abandon(ctx, p)
	}
	return 0, nil
}

// earlier returns the shorter of two waits; 0 is no wait.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// schedule writes one decision. A conflict is not an error, and nothing was written: the change that caused it triggers another
// pass.
func (s *Scheduler) schedule(ctx context.Context, p *carav1.Project, req *carav1.ScheduleProjectRequest) (*written, error) {
	req.Name, req.ResourceVersion = p.GetMetadata().GetName(), p.GetMetadata().GetResourceVersion()
	out, err := s.writer.write(ctx, req)
	if api.IsConflict(err) || api.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, loop.Refused(fmt.Errorf("%s project %s: %w", req.Action, req.Name, err))
	}
	return &out, nil
}

// nodeKey and projectKey return queue keys.
func nodeKey(name string) string    { return api.KindNode + "/" + name }
func projectKey(name string) string { return api.KindProject + "/" + name }
