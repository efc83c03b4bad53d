package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/agent/content"
	"github.com/caravanserai/cara/agent/endpoints"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/meter"
	"github.com/caravanserai/cara/agent/probe"
	"github.com/caravanserai/cara/agent/slots"
	"github.com/caravanserai/cara/agent/stream"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// Agent manages one engine for one node. It assembles the parts that Run runs. Each part has its own state and does not know
// the Agent.
type Agent struct {
	log         *slog.Logger
	disk        *disk
	images      *image.Book
	assignments *assignments
	reports     *reporter
	pulls       *image.Puller
	probes      *probe.Prober
	machine     *machine
	inventory   *inventory
	receiving   *receiving
	restoring   *restoring
	mover       *mover
	backups     *backups
	watcher     *watcher
	server      *connection
	collector   *image.Collector
	endpoints   *endpoints.Table
	usage       *meter.Sampler
}

// New returns an Agent. It does nothing until Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	log, nodes := cfg.Logger.With("node", cfg.NodeName), carav1.NewNodeServiceClient(cfg.Conn)
	beat, relist := make(chan struct{}, 1), make(chan struct{}, 1)
	a := &Agent{log: log, disk: &disk{dir: cfg.DataDir}, images: image.NewBook(cfg.DataDir), assignments: newAssignments(cfg, log)}
	a.endpoints = endpoints.New(a.assignments.hint)
	a.usage = meter.NewSampler(cfg.Engine, cfg.Requests, cfg.UsageEvery)
	a.pulls = image.NewPuller(cfg.Engine, a.images, log, cfg.Pulls, a.assignments.hint)
	a.pulls.Helpers = cfg.Helpers
	a.probes = probe.New(cfg.Engine, cfg.ProbeEvery, a.assignments.hint)
	a.reports = newReporter(cfg, log, a.assignments.reported)
	a.inventory = newInventory(cfg, log, a.assignments, a.disk, beat)
	a.receiving = newReceiving(cfg, log, a.assignments, a.disk, a.inventory.look)
	a.mover = newMover(cfg, log, a.assignments.hint)
	a.machine = newMachine(cfg, log, a.disk, a.inventory, beat)
	events := &events{client: carav1.NewEventServiceClient(cfg.Conn), node: cfg.NodeName, log: log}
	a.backups = newBackups(cfg, log, a.assignments, a.disk, events)
	a.restoring = newRestoring(cfg, log, a.assignments, a.disk, a.inventory, a.backups)
	released := &released{beat: beat}
	files := content.New(filepath.Join(cfg.DataDir, "files"), carav1.NewFileServiceClient(cfg.Conn), a.assignments.blobs)
	kept := stream.KeptLogsIn(filepath.Join(cfg.DataDir, "logs"))
	a.assignments.queue = newQueue(cfg, log, a.machine, &worker{
		log: log, assignments: a.assignments, disk: a.disk, kept: kept, machine: a.machine, reports: a.reports, endpoints: a.endpoints,
		events: events, released: released, mover: a.mover, backups: a.backups,
		observer: &observer{node: cfg.node(), engine: cfg.Engine, pulls: a.pulls, probes: a.probes, files: files},
		actor:    &actor{log: log, engine: cfg.Engine, pulls: a.pulls, kept: kept, files: files, slots: slots.New(cfg.EngineCalls, cfg.Stops), volume: a.inventory.look},
	})
	a.watcher = &watcher{cfg: cfg, log: log, assignments: a.assignments, machine: a.machine, events: events, usage: a.usage, relist: relist}
	a.server = &connection{
		cfg: cfg, log: log, nodes: nodes, instance: uuid.NewString(), assignments: a.assignments, machine: a.machine, inventory: a.inventory, receiving: a.receiving, restoring: a.restoring, backups: a.backups,
		reports: a.reports, released: released, relist: relist, beat: beat, confirm: beat,
		streams: &stream.Server{
			Nodes: nodes, Engine: cfg.Engine, Node: cfg.node(), Log: log, Kept: kept,
			Want: a.assignments.wanted, Listen: a.assignments.listeners.listen, Endpoint: a.endpoints.IP, Usage: a.usage.Of,
		},
	}
	a.collector = &image.Collector{
		Engine: cfg.Engine, Book: a.images, Log: log, Every: cfg.CollectEvery, Above: cfg.Limits.CollectAbove, To: cfg.Limits.CollectTo,
		Disk: a.machine.diskUsed, Assigned: a.assignments.images,
		Tell: func(ctx context.Context, message string) {
			events.ofNode(ctx, api.EventNormal, api.ReasonImagesCollected, message)
		},
	}
	return a, nil
}

// newQueue returns the queue of projects. An error that a condition of the node already reports is not logged for each
// project.
func newQueue(cfg Config, log *slog.Logger, m *machine, w *worker) *loop.Queue {
	return loop.NewQueue(loop.QueueConfig{
		Name: "projects", Workers: cfg.Workers, Do: w.work, Metrics: cfg.Queues, MaxBackoff: cfg.MaxBackoff, Logger: log,
		Quiet: func(err error) bool {
			return errors.Is(err, engine.ErrUnavailable) && m.engine.error() != nil || errors.Is(err, errNotKept) && m.keeps.error() != nil
		},
	})
}

// Endpoints returns the services of this node that may receive requests.
func (a *Agent) Endpoints() *endpoints.Table { return a.endpoints }

// ReceiveVolume serves a connection on which another node, whose identity was verified, sends a volume.
func (a *Agent) ReceiveVolume(ctx context.Context, node string, conn net.Conn) {
	a.receiving.receiver.Serve(ctx, node, conn)
}

// Run manages the engine until ctx ends. Containers keep running after that. It fails only if the data directory cannot be
// used, or if a newer agent took over this node's name (ErrSuperseded).
func (a *Agent) Run(ctx context.Context) error {
	if err := a.assignments.load(a.disk); err != nil {
		return err
	}
	if err := a.images.Load(); err != nil {
		return err
	}
	if problem := confine.Problem(); problem != "" {
		a.log.Warn("rsync and restic can read files outside of the volumes that they copy: move and back up only projects whose containers you trust", "problem", problem)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		a.assignments.queue.Run, a.assignments.releaseHeld, a.reports.queue.Run, a.pulls.Run, a.probes.Run, a.machine.run, a.watcher.listen,
		a.watcher.relistLoop, a.server.run, a.collector.Run, a.backups.run, a.inventory.run, a.inventory.measure,
		a.receiving.run, a.restoring.run, a.mover.queue.Run, a.machine.watchTools, a.usage.Run,
	} {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}
