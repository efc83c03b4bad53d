package agent

import (
	"context"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// puller fetches images, each (reference, credentials) once however many projects ask, a few side by side. A pull that
// nobody waits for any more is given up.
type puller struct {
	engine engine.Images
	notify func(project string)
	slots  chan struct{}
	start  chan *pullJob

	mu   sync.Mutex
	jobs map[pullKey]*pullJob
}

type pullKey struct{ ref, user, password string }

type pullJob struct {
	key  pullKey
	auth *carav1.RegistryAuth
	// Guarded by puller.mu.
	waiting  map[string]bool // projects
	progress engine.Progress
	told     time.Time // when progress was last told
	done     bool
	image    engine.Image
	err      error
	cancel   context.CancelFunc // nil until it begins
}

func newPuller(eng engine.Images, slots int, notify func(string)) *puller {
	return &puller{
		engine: eng, notify: notify, slots: make(chan struct{}, slots),
		start: make(chan *pullJob), jobs: map[pullKey]*pullJob{},
	}
}

func (p *puller) run(ctx context.Context) error {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case job := <-p.start:
			jobs.Go(func() { p.pull(ctx, job) })
		}
	}
}

func keyOf(ref string, auth *carav1.RegistryAuth) pullKey {
	return pullKey{ref: ref, user: auth.GetUsername(), password: auth.GetPassword()}
}

// ask makes project wait for an image.
func (p *puller) ask(ctx context.Context, project, ref string, auth *carav1.RegistryAuth) {
	key := keyOf(ref, auth)
	p.mu.Lock()
	if job := p.jobs[key]; job != nil && !job.done {
		job.waiting[project] = true
		p.mu.Unlock()
		return
	}
	job := &pullJob{key: key, auth: auth, waiting: map[string]bool{project: true}}
	p.jobs[key] = job
	p.mu.Unlock()
	select {
	case p.start <- job:
	case <-ctx.Done():
	}
}

// state of a pull that project asked for. One that is done is handed over once; found is false where it never asked.
func (p *puller) state(project, ref string, auth *carav1.RegistryAuth) (job pullJob, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.jobs[keyOf(ref, auth)]
	if j == nil || !j.waiting[project] {
		return pullJob{}, false
	}
	if j.done {
		p.leave(j, project)
	}
	return *j, true
}

// forget ends a project's interest in all images but those of keep.
func (p *puller) forget(project string, keep map[pullKey]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, j := range p.jobs {
		if j.waiting[project] && !keep[key] {
			p.leave(j, project)
		}
	}
}

// leave is called with mu held.
func (p *puller) leave(j *pullJob, project string) {
	delete(j.waiting, project)
	if len(j.waiting) > 0 {
		return
	}
	delete(p.jobs, j.key)
	if j.cancel != nil {
		j.cancel()
	}
}

func (p *puller) pull(ctx context.Context, job *pullJob) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	job.cancel = cancel
	abandoned := len(job.waiting) == 0
	p.mu.Unlock()
	var image engine.Image
	err := context.Canceled
	if !abandoned {
		select {
		case p.slots <- struct{}{}:
			image, err = p.engine.PullImage(ctx, job.key.ref, job.auth, func(progress engine.Progress) { p.tell(job, progress) })
			<-p.slots
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	job.done, job.image, job.err = true, image, err
	waiting := keys(job.waiting)
	p.mu.Unlock()
	p.tellAll(waiting)
}

// progressEvery is how often progress is worth telling.
const progressEvery = time.Second

func (p *puller) tell(job *pullJob, progress engine.Progress) {
	p.mu.Lock()
	job.progress = progress
	due := time.Since(job.told) >= progressEvery
	var waiting []string
	if due {
		job.told = time.Now()
		waiting = keys(job.waiting)
	}
	p.mu.Unlock()
	p.tellAll(waiting)
}

func (p *puller) tellAll(projects []string) {
	for _, project := range projects {
		p.notify(project)
	}
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
