package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// reporter sends the status of each project to the server: only the newest report, only if it changed, and again until the
// server accepts or rejects it. Nothing waits for it.
type reporter struct {
	client carav1.ProjectServiceClient
	log    *slog.Logger
	queue  *loop.Queue
	took   func(project string, r *carav1.UpdateProjectStatusRequest)

	// taken, dropped and failed count reports by result.
	taken, dropped, failed atomic.Int64

	mu      sync.Mutex
	pending map[string]*carav1.UpdateProjectStatusRequest
	sent    map[string]*carav1.UpdateProjectStatusRequest // the last report that the server accepted or rejected
}

// reportTimeout is the timeout of one call.
const reportTimeout = 10 * time.Second

func newReporter(cfg Config, log *slog.Logger, took func(string, *carav1.UpdateProjectStatusRequest)) *reporter {
	r := &reporter{
		client: carav1.NewProjectServiceClient(cfg.Conn), log: log, took: took,
		pending: map[string]*carav1.UpdateProjectStatusRequest{}, sent: map[string]*carav1.UpdateProjectStatusRequest{},
	}
	r.queue = loop.NewQueue(loop.QueueConfig{
		Name: "reports", Workers: 8, Do: r.send, Metrics: cfg.Queues, MaxBackoff: cfg.MaxBackoff, Logger: log,
		Quiet: func(err error) bool { return api.Code(err) == codes.Unavailable }, // logged once, by the connection
	})
	return r
}

// put sets the newest report of a project.
func (r *reporter) put(report *carav1.UpdateProjectStatusRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case proto.Equal(r.pending[report.Name], report):
		return
	case r.pending[report.Name] == nil && proto.Equal(r.sent[report.Name], report):
		return
	}
	r.pending[report.Name] = report
	r.queue.Add(report.Name)
}

// renew makes every report be sent again, because the server may have lost it.
func (r *reporter) renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.sent)
}

// forget drops the pending and the last report of a project.
func (r *reporter) forget(project string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, project)
	delete(r.sent, project)
}

func (r *reporter) send(ctx context.Context, project string) (time.Duration, error) {
	r.mu.Lock()
	report := r.pending[project]
	r.mu.Unlock()
	if report == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := r.client.UpdateProjectStatus(ctx, report)
	switch api.Code(err) {
	case codes.OK:
		r.taken.Add(1)
		r.took(project, report)
	case codes.Aborted, codes.FailedPrecondition, codes.NotFound, codes.InvalidArgument, codes.PermissionDenied:
		r.dropped.Add(1)
		// The assignment or generation is no longer in force. The stream sends the current one.
		r.log.Info("report dropped", "project", project, "epoch", report.Epoch, "phase", report.Phase, "error", err)
	default:
		r.failed.Add(1)
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[project] == report {
		delete(r.pending, project)
		r.sent[project] = report
	}
	return 0, nil
}

// waiting counts the projects whose newest report the server has not accepted yet.
func (r *reporter) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}
