package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// mover copies the data of the projects of this node that move to another one. The worker of a project tells it what to do
// (sync), and reads the result (state). Nothing of it is on disk: after a restart of the agent the copy begins again, and
// rsync skips what was copied already.
type mover struct {
	cfg   Config
	log   *slog.Logger
	hint  func(project string) // is called when a state has changed
	queue *loop.Queue

	mu   sync.Mutex
	jobs map[string]*moveJob // by project
}

// moveKey identifies one thing to do for a move.
type moveKey struct {
	id, step string
	attempts int32
	stopped  bool // the project is stopped
}

func keyOf(m *carav1.Move, stopped bool) moveKey {
	return moveKey{id: m.GetId(), step: m.GetStep(), attempts: m.GetAttempts(), stopped: stopped && m.GetStep() == api.MoveSwitching}
}

// moveJob is one thing to do for a move. All fields but state, told and stop are constant.
type moveJob struct {
	key    moveKey
	want   *step.Want
	caches map[string]*volume.Cache // by uid; only for the job that runs
	done   chan struct{}            // closed when another job takes its place

	// Guarded by mover.mu.
	state    step.Moving
	told     time.Time // when a progress was last told
	failures int       // of rsync, one after the other
}

// concurrentMoves is how many projects are copied at the same time.
const concurrentMoves = 2

func newMover(cfg Config, log *slog.Logger, hint func(string)) *mover {
	m := &mover{cfg: cfg, log: log, hint: hint, jobs: map[string]*moveJob{}}
	m.queue = loop.NewQueue(loop.QueueConfig{
		Name: "moves", Workers: concurrentMoves, Do: m.do, Metrics: cfg.Queues, MaxBackoff: cfg.MaxBackoff, Logger: log,
	})
	return m
}

// keeps reports whether a job stays, although the project runs again: its switch has failed on this node, so the project continues. Without
// the result, the project would be stopped for the same switch again.
func (j *moveJob) keeps(key moveKey) bool {
	key.stopped = j.key.stopped
	return j.key == key && (j.state.Result == api.MoveInterrupted || j.state.Result == api.MoveFailed)
}

// sync sets what to do for a project. stopped is true if nothing of the project runs.
func (m *mover) sync(want *step.Want, stopped bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	job := m.jobs[want.Project]
	key := keyOf(want.Move, stopped)
	wanted := want.Move != nil && !want.Remove
	if job == nil && !wanted || job != nil && wanted && (job.key == key || job.keeps(key)) {
		return
	}
	caches := map[string]*volume.Cache{}
	if job != nil {
		close(job.done)
		delete(m.jobs, want.Project)
		if job.key.id == key.id {
			caches = job.caches
		}
	}
	if wanted {
		m.jobs[want.Project] = &moveJob{key: key, want: want, caches: caches, done: make(chan struct{})}
		m.queue.Add(want.Project)
	}
}

// state returns the state of a project's move.
func (m *mover) state(want *step.Want) step.Moving {
	m.mu.Lock()
	defer m.mu.Unlock()
	job := m.jobs[want.Project]
	if want.Move == nil || job == nil || job.key != keyOf(want.Move, job.key.stopped) {
		return step.Moving{}
	}
	return job.state
}

// set changes the state of a job, and tells the project's worker.
func (m *mover) set(job *moveJob, change func(*step.Moving)) {
	m.mu.Lock()
	change(&job.state)
	job.told = time.Now()
	m.mu.Unlock()
	m.hint(job.want.Project)
}

// progressEvery is how often progress is told.
const progressEvery = 2 * time.Second

// progress tells the progress of a job, at most every progressEvery.
func (m *mover) progress(job *moveJob, text string) {
	m.mu.Lock()
	due := time.Since(job.told) >= progressEvery || job.state.Progress == ""
	m.mu.Unlock()
	if due {
		m.set(job, func(s *step.Moving) { s.Progress = text })
	}
}

// do does what a project's job says, until it has a result.
func (m *mover) do(ctx context.Context, project string) (time.Duration, error) {
	m.mu.Lock()
	job := m.jobs[project]
	if job == nil || job.state.Result != "" || job.key.step == api.MoveSwitching && !job.key.stopped {
		m.mu.Unlock()
		return 0, nil
	}
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-job.done:
			cancel()
		case <-ctx.Done():
		}
	})
	err := m.run(ctx, job)
	if ctx.Err() != nil {
		return 0, nil // another job has taken its place, or the agent ends
	}
	if volume.IsCopyError(err) {
		err = m.failed(job, err)
	}
	result, message := moveResult(job.key.step, err)
	message, err = job.want.Values.Text(message), job.want.Values.Error(err)
	if err != nil {
		m.log.Warn("a move has made no progress", "project", project, "step", job.key.step, "result", result, "error", err)
	} else {
		m.log.Info("a step of a move is complete", "project", project, "step", job.key.step, "result", result)
	}
	m.set(job, func(s *step.Moving) { s.Result, s.Message = result, message })
	if result == "" {
		return 0, err
	}
	return 0, nil
}

// maxCopyFailures is how often rsync may fail one after the other, apart from broken connections, before a move ends. Each try
// can copy what the one before could not, for example a file that changed meanwhile.
const maxCopyFailures = 5

// failed counts a failure of rsync. The last one is final.
func (m *mover) failed(job *moveJob, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	job.failures++
	if job.failures < maxCopyFailures {
		return fmt.Errorf("%w (attempt %d of %d)", err, job.failures, maxCopyFailures)
	}
	return volume.Final(fmt.Errorf("%w (%d attempts failed)", err, job.failures))
}

// moveResult returns the result of a step for the server, and the message of a failure. Without a result, the step is tried
// again.
func moveResult(moveStep string, err error) (result, message string) {
	switch {
	case err == nil && moveStep == api.MoveCopying:
		return api.MoveCopied, ""
	case err == nil:
		return api.MoveVerified, ""
	case volume.IsFinal(err):
		return api.MoveFailed, err.Error()
	case moveStep == api.MoveSwitching:
		return api.MoveInterrupted, err.Error()
	}
	return "", err.Error()
}

// run does what a job says.
func (m *mover) run(ctx context.Context, job *moveJob) error {
	move := job.want.Move
	if m.cfg.DialVolumes == nil {
		return volume.Final(fmt.Errorf("node %s has no ingress, which other nodes need to receive data: start cara-agent there with --ingress-listen", job.want.Node))
	}
	if move.GetAddress() == "" {
		return volume.Final(fmt.Errorf("node %s cannot reach the agent of node %s: give it an address that other nodes reach with cara-agent --ingress-address",
			job.want.Node, move.GetTo()))
	}
	for _, v := range move.GetVolumes() {
		s, err := m.sender(ctx, job, v)
		if err == nil && job.key.step == api.MoveCopying {
			err = m.copy(ctx, job, s, v.GetName())
		} else if err == nil {
			err = m.finish(ctx, job, s, v.GetName())
		}
		if errors.Is(err, engine.ErrNotFound) {
			err = volume.Final(err)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", api.VolumeName(job.want.Project, v.GetName()), err)
		}
	}
	return nil
}

// sender returns what copies one volume.
func (m *mover) sender(ctx context.Context, job *moveJob, v *carav1.MovedVolume) (*volume.Sender, error) {
	dir, err := dataDir(ctx, m.cfg.Engine, api.EngineVolume(job.want.Project, v.GetName(), v.GetUid()), v.GetUid())
	if err != nil {
		return nil, err
	}
	if job.caches[v.GetUid()] == nil {
		job.caches[v.GetUid()] = &volume.Cache{}
	}
	to, address := job.want.Move.GetTo(), job.want.Move.GetAddress()
	return &volume.Sender{
		UID: v.GetNewUid(), Node: to, Dir: dir, Cache: job.caches[v.GetUid()],
		Dial: func(ctx context.Context) (net.Conn, error) { return m.cfg.DialVolumes(ctx, to, address) },
	}, nil
}

const (
	// longPass is how long a pass must have taken, so that another one is made before the project is stopped.
	longPass = 10 * time.Second
	// maxPassesBefore is the maximum number of passes before that.
	maxPassesBefore = 3
)

// copy makes the passes while the project runs. They also fill the caches of hashes on both nodes.
func (m *mover) copy(ctx context.Context, job *moveJob, s *volume.Sender, name string) error {
	for range maxPassesBefore {
		begun := time.Now()
		if err := s.Copy(ctx, volume.Pass{Running: true, Progress: m.copying(job, name)}); err != nil {
			return err
		}
		m.progress(job, fmt.Sprintf("comparing volume %s with its copy on node %s", name, s.Node))
		if _, err := s.Compare(ctx, true); err != nil {
			return err
		}
		if time.Since(begun) < longPass {
			break
		}
	}
	return nil
}

// copying returns a function that tells the progress of a copy.
func (m *mover) copying(job *moveJob, name string) func(volume.Progress) {
	return func(p volume.Progress) {
		m.progress(job, fmt.Sprintf("copying volume %s to node %s: %s of %s, %d of %d files", name, job.want.Move.GetTo(),
			volume.SizeText(p.Bytes), volume.SizeText(p.TotalBytes), p.Files, p.TotalFiles))
	}
}

// finish copies the last changes while the project is stopped, and returns no error only if the copy is equal. If rsync
// missed something, it is copied again.
func (m *mover) finish(ctx context.Context, job *moveJob, s *volume.Sender, name string) error {
	if err := s.Copy(ctx, volume.Pass{Progress: m.copying(job, name)}); err != nil {
		return err
	}
	m.progress(job, fmt.Sprintf("verifying the copy of volume %s on node %s", name, s.Node))
	found, err := s.Compare(ctx, false)
	if err != nil || found.Equal() {
		return err
	}
	m.log.Warn("the copy of a volume differs and is copied again", "project", job.want.Project, "volume", name, "node", s.Node,
		"differences", found.Total, "first", found.String())
	m.set(job, func(st *step.Moving) {
		st.Progress = fmt.Sprintf("copying %d entries of volume %s again, which differ on node %s: %s", found.Total, name, s.Node, found)
	})
	if err := errors.Join(s.Remove(ctx, found), s.Copy(ctx, volume.Pass{Checksum: true})); err != nil {
		return err
	}
	if found, err = s.Compare(ctx, false); err != nil || found.Equal() {
		return err
	}
	return fmt.Errorf("the copy on node %s differs, although it was copied again: %s", s.Node, found)
}
