package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// glance is the longest time between two looks at the wall clock.
const glance = 30 * time.Second

// history is the queue's key for trimming.
const history = "history"

// Config configures a Collector.
type Config struct {
	// Conn is the connection to the API, with the identity `system/gc`.
	Conn   grpc.ClientConnInterface
	Logger *slog.Logger
	// Metrics is optional.
	Metrics *loop.Metrics
	// Workers is the number of concurrent workers. The default is 16.
	Workers int
	// KeepEvents is how long events are kept. The default is 24 h.
	KeepEvents time.Duration
	// KeepTombstones is how long tombstones are kept. The default is 7 days.
	KeepTombstones time.Duration
	// TrimEvery is how often history is trimmed. The default is 1 h.
	TrimEvery time.Duration
	// NoticeBefore is how long before its expiry a project is marked as expiring, at most half of its life. The default is 15
	// min.
	NoticeBefore time.Duration
	// Now is the wall clock. The default is time.Now.
	Now func() time.Time
}

// Validate checks the configuration.
func (c Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("gc: Conn is required")
	case c.Logger == nil:
		return errors.New("gc: Logger is required")
	case c.Workers < 0 || c.KeepEvents < 0 || c.KeepTombstones < 0 || c.TrimEvery < 0 || c.NoticeBefore < 0:
		return errors.New("gc: Workers, KeepEvents, KeepTombstones, TrimEvery and NoticeBefore must not be negative")
	}
	return nil
}

// Collector deletes what has expired.
type Collector struct {
	cfg      Config
	projects carav1.ProjectServiceClient
	events   carav1.EventServiceClient
	files    carav1.FileServiceClient
	mirror   *loop.Mirror
	queue    *loop.Queue

	mu     sync.Mutex
	agenda *Agenda

	sooner chan struct{} // wakes tick when the agenda may start earlier than the timer
}

// New returns a Collector. It does nothing until Run.
func New(cfg Config) *Collector {
	cfg = cfg.withDefaults()
	c := &Collector{
		cfg: cfg, projects: carav1.NewProjectServiceClient(cfg.Conn), events: carav1.NewEventServiceClient(cfg.Conn), files: carav1.NewFileServiceClient(cfg.Conn),
		agenda: NewAgenda(), sooner: make(chan struct{}, 1),
	}
	c.mirror = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(cfg.Conn), Kinds: []string{api.KindProject, api.KindOverride},
		OnChange: c.changed, Logger: cfg.Logger,
	})
	c.queue = loop.NewQueue(loop.QueueConfig{Name: "gc", Workers: cfg.Workers, Do: c.work, Metrics: cfg.Metrics, Logger: cfg.Logger})
	c.queue.Add(history)
	return c
}

func (c Config) withDefaults() Config {
	c.KeepEvents = cmp.Or(c.KeepEvents, 24*time.Hour)
	c.KeepTombstones = cmp.Or(c.KeepTombstones, 7*24*time.Hour)
	c.TrimEvery = cmp.Or(c.TrimEvery, time.Hour)
	c.NoticeBefore = cmp.Or(c.NoticeBefore, 15*time.Minute)
	c.Workers = cmp.Or(c.Workers, 16)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Run works until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.mirror.Run(ctx) })
	group.Go(func() error { return c.queue.Run(ctx) })
	group.Go(func() error { c.tick(ctx); return nil })
	return group.Wait()
}

// changed updates the agenda after a transaction.
func (c *Collector) changed(changes []loop.Change) {
	c.mu.Lock()
	for _, ch := range changes {
		c.note(ch.Object(), ch.New == nil)
	}
	c.mu.Unlock()
	c.hurry()
}

// note updates the agenda for one object. c.mu is held.
func (c *Collector) note(m proto.Message, gone bool) {
	for _, key := range keysOf(m) {
		c.agenda.Drop(key)
	}
	if gone {
		return
	}
	for _, action := range ActionsFor(m, c.cfg.NoticeBefore) {
		c.agenda.Set(action)
	}
}

func (c *Collector) hurry() {
	select {
	case c.sooner <- struct{}{}:
	default: // tick is already notified
	}
}

// tick queues the due actions and sleeps until the next one is due.
func (c *Collector) tick(ctx context.Context) {
	timer := time.NewTimer(glance)
	defer timer.Stop()
	for {
		now := c.cfg.Now()
		c.mu.Lock()
		due, next := Due(c.agenda, now)
		c.mu.Unlock()
		for _, a := range due {
			c.queue.Add(a.key())
		}
		wait := glance
		if !next.IsZero() {
			wait = min(wait, next.Sub(now))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.sooner:
		}
	}
}

// work runs the action that is due for one key, if it is still due.
func (c *Collector) work(ctx context.Context, key string) (time.Duration, error) {
	if key == history {
		return c.cfg.TrimEvery, c.trim(ctx)
	}
	action, ok := c.look(key)
	if !ok {
		return 0, nil
	}
	if action.At.After(c.cfg.Now()) { // extended, or the clock was set back
		c.mu.Lock()
		c.agenda.Set(action)
		c.mu.Unlock()
		c.hurry()
		return 0, nil
	}
	err := c.do(ctx, action)
	switch {
	case err == nil:
		due := action.At
		if due.IsZero() { // removal of a Terminated project has no due time
			due = c.cfg.Now()
		}
		c.cfg.Logger.Info("time is up", "do", action.Verb, "project", action.Name, "due", due)
	case api.IsNotFound(err), api.IsConflict(err): // deleted or replaced: the watch reports it
	default:
		return 0, loop.Refused(err)
	}
	return glance, nil // look again in case the watch does not report the change
}

// look returns the current action for a key.
func (c *Collector) look(key string) (Action, bool) {
	kind, name, _ := strings.Cut(key, "/")
	var actions []Action
	if kind == api.KindOverride {
		if o, ok := loop.Get[*carav1.Override](c.mirror, name); ok {
			actions = ActionsFor(o, c.cfg.NoticeBefore)
		}
	} else if p, ok := loop.Get[*carav1.Project](c.mirror, name); ok {
		actions = ActionsFor(p, c.cfg.NoticeBefore)
	}
	i := slices.IndexFunc(actions, func(a Action) bool { return a.key() == key })
	if i < 0 {
		return Action{}, false
	}
	return actions[i], true
}

func (c *Collector) do(ctx context.Context, a Action) (err error) {
	switch a.Verb {
	case Expire:
		_, err = c.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: a.Name, Uid: a.UID, Reason: api.ReasonExpired, NoWait: true})
	case Remove:
		_, err = c.projects.RemoveProject(ctx, &carav1.RemoveProjectRequest{Name: a.Name, Uid: a.UID})
	case Notice:
		_, err = c.projects.NoticeExpiry(ctx, &carav1.RemoveProjectRequest{Name: a.Name, Uid: a.UID})
	case ClearOverride:
		_, err = c.projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: a.Name, Clear: true})
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", strings.ToLower(string(a.Verb)), a.Name, err)
	}
	return nil
}

func (c *Collector) trim(ctx context.Context) error {
	now := c.cfg.Now()
	resp, err := c.events.TrimHistory(ctx, &carav1.TrimHistoryRequest{
		EventsBefore:     timestamppb.New(now.Add(-c.cfg.KeepEvents)),
		TombstonesBefore: timestamppb.New(now.Add(-c.cfg.KeepTombstones)),
	})
	if err != nil {
		return fmt.Errorf("trim history: %w", err)
	}
	if resp.Events+resp.Tombstones+resp.Overrides > 0 {
		c.cfg.Logger.Info("history trimmed", "events", resp.Events, "tombstones", resp.Tombstones, "overrides", resp.Overrides)
	}
	return c.trimFiles(ctx, now)
}

// trimFiles deletes the contents of files that nothing has used since the last trim.
func (c *Collector) trimFiles(ctx context.Context, now time.Time) error {
	resp, err := c.files.TrimBlobs(ctx, &carav1.TrimBlobsRequest{Before: timestamppb.New(now.Add(-c.cfg.TrimEvery / 2))})
	if err != nil {
		return fmt.Errorf("trim files: %w", err)
	}
	if resp.GetDeleted() > 0 {
		c.cfg.Logger.Info("unused files deleted", "deleted", resp.GetDeleted(), "kept", resp.GetKept(), "kept_bytes", resp.GetKeptBytes())
	}
	return nil
}
