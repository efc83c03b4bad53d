package image

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/engine"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Puller pulls images, a few concurrently. Each reference is pulled once per credentials, however many projects ask for it.
// It cancels a pull that no project waits for. It does not retry: agent/step decides whether and when to retry a failed pull
// (step.Pull).
type Puller struct {
	engine engine.Images
	book   *Book
	log    *slog.Logger
	notify func(project string)
	start  chan *pullJob

	// Helpers give logins for images that have none. Set it before Run.
	Helpers *Helpers

	// Pulled and Failed count the pulls that have ended.
	Pulled, Failed atomic.Int64

	mu   sync.Mutex
	jobs map[Key]*pullJob
	free int                  // slots
	slow map[string]time.Time // registries that were too slow while others waited, and since when: see relieve
	next []*pullJob           // that wait for a slot, in order of arrival
}

// Key identifies a pull. The same image may be pulled with several credentials.
type Key struct{ ref, user, password string }

// Pull is the state of one pull. Err is why it failed. It is nil until Done.
type Pull struct {
	Progress engine.Progress
	Done     bool
	Err      error
}

type pullJob struct {
	key  Key
	auth *carav1.RegistryAuth
	// The fields below are guarded by Puller.mu.
	waiting map[string]bool // projects
	Pull
	told   time.Time          // when progress was last reported
	cancel context.CancelFunc // nil until the pull starts
	pace
}

// NewPuller returns a Puller. It does nothing until Run. It calls notify with each waiting project when its pull makes
// progress or ends.
func NewPuller(eng engine.Images, book *Book, log *slog.Logger, slots int, notify func(string)) *Puller {
	return &Puller{
		engine: eng, book: book, log: log, notify: notify, start: make(chan *pullJob),
		jobs: map[Key]*pullJob{}, free: slots, slow: map[string]time.Time{},
	}
}

// Run pulls until ctx ends.
func (p *Puller) Run(ctx context.Context) error {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-check.C:
			p.relieve(now)
		case job := <-p.start:
			jobs.Go(func() { p.pull(ctx, job) })
		}
	}
}

// KeyOf returns the key of a pull.
func KeyOf(ref string, auth *carav1.RegistryAuth) Key {
	return Key{ref: ref, user: auth.GetUsername(), password: auth.GetPassword()}
}

// Ask starts a pull for a project, or joins one that is running.
func (p *Puller) Ask(ctx context.Context, project, ref string, auth *carav1.RegistryAuth) {
	key := KeyOf(ref, auth)
	p.mu.Lock()
	if job := p.jobs[key]; job != nil && !job.Done {
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

// State returns the state of a pull that a project asked for. A completed pull is returned once. found is false if the
// project did not ask.
func (p *Puller) State(project, ref string, auth *carav1.RegistryAuth) (pull Pull, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.jobs[KeyOf(ref, auth)]
	if j == nil || !j.waiting[project] {
		return Pull{}, false
	}
	if j.Done {
		p.leave(j, project)
	}
	return j.Pull, true
}

// Forget removes a project from all pulls except those in keep.
func (p *Puller) Forget(project string, keep map[Key]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, j := range p.jobs {
		if j.waiting[project] && !keep[key] {
			p.leave(j, project)
		}
	}
}

// leave removes a project from a pull, and cancels the pull if no project waits for it. mu is held.
func (p *Puller) leave(j *pullJob, project string) {
	delete(j.waiting, project)
	if len(j.waiting) > 0 {
		return
	}
	delete(p.jobs, j.key)
	if j.cancel != nil {
		j.cancel()
	}
}

func (p *Puller) pull(ctx context.Context, job *pullJob) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	job.cancel = cancel
	abandoned := len(job.waiting) == 0
	p.mu.Unlock()
	err := context.Canceled
	if !abandoned {
		select {
		case <-p.turn(job):
			err = p.fetch(ctx, job)
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	if job.stopped && err != nil {
		err = tooSlow(job)
	}
	job.Done, job.Err = true, err
	p.end(job)
	waiting := slices.Collect(maps.Keys(job.waiting))
	p.mu.Unlock()
	p.tellAll(waiting)
}

// fetch pulls an image and adds it to the book. It lists the stored images first: an image that was there before is not
// ours.
func (p *Puller) fetch(ctx context.Context, job *pullJob) error {
	before, err := p.engine.ListImages(ctx)
	if err != nil {
		return err
	}
	img, err := p.pullWithLogin(ctx, job)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			p.Failed.Add(1)
		}
		return err
	}
	p.Pulled.Add(1)
	wasThere := slices.ContainsFunc(before, func(s engine.StoredImage) bool { return s.ID == img.ID })
	if err := p.book.add(img.ID, job.key.ref, wasThere, time.Now()); err != nil {
		p.log.Warn("a pulled image is not in the book: it will never be collected", "image", job.key.ref, "error", err)
	}
	return nil
}

// maxLogins is the maximum number of a helper's logins that one pull tries.
const maxLogins = 3

// pullWithLogin pulls with the login of the project's Secrets, or else with that of a helper. A helper's login may have ended,
// even if the helper gave it just now. So if the registry refuses one, the helper is asked again. The same login is not
// tried twice.
func (p *Puller) pullWithLogin(ctx context.Context, job *pullJob) (engine.Image, error) {
	if job.auth != nil {
		return p.engine.PullImage(ctx, job.key.ref, job.auth, func(progress engine.Progress) { p.tell(job, progress) })
	}
	var refused *carav1.RegistryAuth
	var refusal error
	for range maxLogins {
		auth, err := p.Helpers.Auth(ctx, job.key.ref, refused)
		if err != nil {
			return engine.Image{}, err
		}
		if refused != nil && proto.Equal(auth, refused) {
			break
		}
		img, isRefusal, err := p.pullWithHelper(ctx, job, auth)
		if !isRefusal {
			return img, err
		}
		refused, refusal = auth, err
	}
	return engine.Image{}, refusal
}

// pullWithHelper pulls with a login that a helper has given, or with none, and reports whether the registry has refused the
// login. If that happened after the registry had accepted it, the error is not final: the login has ended during the pull.
func (p *Puller) pullWithHelper(ctx context.Context, job *pullJob, auth *carav1.RegistryAuth) (img engine.Image, refused bool, err error) {
	var accepted atomic.Bool
	img, err = p.engine.PullImage(ctx, job.key.ref, auth, func(progress engine.Progress) {
		if progress.Layers > 0 { // the registry has sent the manifest
			accepted.Store(true)
		}
		p.tell(job, progress)
	})
	if auth == nil || err == nil {
		return img, false, err
	}
	p.Helpers.Drop(job.key.ref, auth)
	refused = errors.Is(err, engine.ErrInvalid)
	err = hide(err, auth)
	if refused && accepted.Load() {
		err = hidden{engine.ErrRegistry, err.Error() + "; the login of the credential helper ended during the pull; the next attempt asks for a new login"}
	}
	return img, refused, err
}

// progressEvery is the minimum time between two progress reports.
const progressEvery = time.Second

func (p *Puller) tell(job *pullJob, progress engine.Progress) {
	p.mu.Lock()
	job.Progress = progress
	due := time.Since(job.told) >= progressEvery
	var waiting []string
	if due {
		job.told = time.Now()
		waiting = slices.Collect(maps.Keys(job.waiting))
	}
	p.mu.Unlock()
	p.tellAll(waiting)
}

func (p *Puller) tellAll(projects []string) {
	for _, project := range projects {
		p.notify(project)
	}
}

// Running returns the number of pulls that have not ended.
func (p *Puller) Running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, j := range p.jobs {
		if !j.Done {
			n++
		}
	}
	return n
}
