package sources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// Config configures Sources.
type Config struct {
	// Conn is the connection to the API, with the identity `system/sources`.
	Conn grpc.ClientConnInterface
	// Git and Dir open the drivers. A source without an opener for its type fails to fetch.
	Git, Dir Opener
	Logger   *slog.Logger
	// Metrics is optional.
	Metrics *loop.Metrics
	// Workers is the number of concurrent passes. The default is 16. At most a quarter of them work on one host, or on failing
	// sources. At most half of them hold a tree in memory.
	Workers int
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

// Validate checks the configuration.
func (c Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("sources: Conn is missing")
	case c.Logger == nil:
		return errors.New("sources: Logger is missing")
	case c.Workers < 0:
		return fmt.Errorf("sources: %d workers; must not be negative", c.Workers)
	}
	return nil
}

// Sources watches every source of the cluster.
type Sources struct {
	cfg    Config
	client carav1.SourceServiceClient
	events carav1.EventServiceClient
	files  carav1.FileServiceClient
	mirror *loop.Mirror
	queue  *loop.Queue

	lanes   *lanes
	reading chan struct{}  // a slot for each pass that holds a tree in memory
	watches sync.WaitGroup // of drivers; Run waits for them

	mu     sync.Mutex
	states map[string]*state // by source; only the worker that has the key uses it
}

// New returns Sources. It does nothing until Run.
func New(cfg Config) *Sources {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Workers = cmp.Or(cfg.Workers, 16)
	s := &Sources{
		cfg: cfg, client: carav1.NewSourceServiceClient(cfg.Conn), events: carav1.NewEventServiceClient(cfg.Conn), files: carav1.NewFileServiceClient(cfg.Conn),
		states: map[string]*state{}, lanes: newLanes(cfg.Workers / 4), reading: make(chan struct{}, max(1, cfg.Workers/2)),
	}
	s.mirror = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(cfg.Conn), Kinds: []string{api.KindSource, api.KindClaim},
		OnChange: s.changed, Wake: func(name string) { s.queue.Add(name) }, Logger: cfg.Logger,
	})
	s.queue = loop.NewQueue(loop.QueueConfig{
		Name: "sources", Workers: cfg.Workers, Do: s.do, Metrics: cfg.Metrics, MaxBackoff: 30 * time.Second, Logger: cfg.Logger,
	})
	return s
}

// Run runs until ctx ends and everything that it started has ended.
func (s *Sources) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var helpers sync.WaitGroup
	helpers.Go(func() { _ = s.mirror.Run(ctx) }) // it returns only when ctx ends
	helpers.Go(func() { s.listen(ctx) })
	if err := s.mirror.WaitSynced(ctx); err == nil {
		_ = s.queue.Run(ctx) // it returns only when ctx ends
	}
	cancel()
	helpers.Wait()
	s.watches.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.states {
		st.close()
	}
	return nil
}

// changed queues the sources that need a pass now: new, changed, deleted, or requested.
func (s *Sources) changed(changes []loop.Change) {
	for _, c := range changes {
		now, ok := c.Object().(*carav1.Source)
		if !ok {
			continue
		}
		was, _ := c.Old.(*carav1.Source)
		if was == nil || c.New == nil || was.Metadata.Generation != now.Metadata.Generation ||
			was.Metadata.Uid != now.Metadata.Uid || now.Metadata.DeletionTimestamp != nil ||
			was.Status.GetRequestedToken() != now.Status.GetRequestedToken() {
			s.queue.Add(now.Metadata.Name)
		}
	}
}

// state returns what is remembered about a source between passes.
func (s *Sources) state(name string) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.states[name]
	if !ok {
		st = &state{}
		s.states[name] = st
	}
	return st
}

func (s *Sources) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.states[name]; ok {
		st.close()
		delete(s.states, name)
	}
}
