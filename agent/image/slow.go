package image

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api/syntax"
)

// A registry that sends almost nothing must not keep the other projects of the node from pulling. Such a pull has one of our
// few slots, and its layers have the few downloads that some engines do at once, of all pulls together. So a slow pull is
// stopped while pulls from registries wait that are not known to be slow, and is tried again later. For an hour the pulls from
// its registry then come last. On a slow line, where every pull is slow, none is stopped any more once all registries are known.
const (
	checkEvery = 15 * time.Second
	paceWindow = time.Minute // over which the pace of a pull is measured; checkEvery for a slow registry
	slowPace   = 64 << 10    // bytes a second below which a pull is slow
	slowFor    = time.Hour   // how long a pull that was stopped is known to be slow
)

// pace is how fast a pull is.
type pace struct {
	turn    chan struct{} // closed when the pull gets a slot; nil before it asks
	running bool          // has a slot
	since   time.Time     // start of the window that is measured
	before  int64         // bytes that were there at its start
	slow    bool          // in the window before
	stopped bool          // by relieve
}

// turn queues a pull for a slot. The channel is closed when it has one.
func (p *Puller) turn(job *pullJob) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	job.turn = make(chan struct{})
	p.next = append(p.next, job)
	p.grant(time.Now())
	return job.turn
}

// end returns the slot of a pull, or takes it out of the queue. mu is held.
func (p *Puller) end(job *pullJob) {
	if job.running {
		job.running = false
		p.free++
	}
	p.next = slices.DeleteFunc(p.next, func(j *pullJob) bool { return j == job })
	p.grant(time.Now())
}

// grant gives the free slots to pulls that wait: first to those of registries that are not slow, then to those of projects with
// the fewest running pulls, then in order of arrival. mu is held.
func (p *Puller) grant(now time.Time) {
	for p.free > 0 && len(p.next) > 0 {
		busy := map[string]int{} // by project
		for _, j := range p.jobs {
			for project := range j.waiting {
				if j.running {
					busy[project]++
				}
			}
		}
		first := slices.MinFunc(p.next, func(a, b *pullJob) int {
			return cmp.Or(cmp.Compare(p.slowness(a), p.slowness(b)), cmp.Compare(leastBusy(a, busy), leastBusy(b, busy)))
		})
		p.next = slices.DeleteFunc(p.next, func(j *pullJob) bool { return j == first })
		p.free--
		first.running, first.since = true, now
		close(first.turn)
	}
}

// slowness is 1 for a pull from a registry that is known to be slow, else 0. mu is held.
func (p *Puller) slowness(j *pullJob) int {
	if _, known := p.slow[registryOf(j.key.ref)]; known {
		return 1
	}
	return 0
}

// leastBusy returns how many pulls run for that project of a pull that has the fewest.
func leastBusy(j *pullJob, busy map[string]int) int {
	least := math.MaxInt
	for project := range j.waiting {
		least = min(least, busy[project])
	}
	return least
}

func registryOf(ref string) string {
	names := syntax.RegistriesOf(ref)
	if len(names) == 0 {
		return ref
	}
	return names[len(names)-1]
}

// measure ends the window of a pull if it is over. mu is held.
func (p *Puller) measure(j *pullJob, now time.Time) {
	window := paceWindow
	if p.slowness(j) > 0 {
		window = checkEvery
	}
	if over := now.Sub(j.since); over >= window {
		j.slow = float64(j.Progress.Done-j.before) < slowPace*over.Seconds()
		j.since, j.before = now, j.Progress.Done
	}
}

// held reports whether a pull waits for others: for a slot, or with all its layers for the engine.
func (j *pullJob) held() bool {
	return !j.running || j.Progress.Queued > 0 && j.Progress.Loading == 0
}

// owed reports whether the registry must still send data of a pull. The engine may take its time with what is there.
func (j *pullJob) owed() bool { return j.Progress.Layers == 0 || j.Progress.Loading > 0 }

// relieve stops one slow pull if others wait.
func (p *Puller) relieve(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.slow, func(_ string, since time.Time) bool { return now.Sub(since) > slowFor })
	waits := false
	var candidates []*pullJob
	for _, j := range p.jobs {
		if j.Done || j.stopped || j.turn == nil {
			continue
		}
		waits = waits || j.held() && p.slowness(j) == 0
		if j.running {
			p.measure(j, now)
			if j.slow && j.owed() {
				candidates = append(candidates, j)
			}
		}
	}
	if !waits || len(candidates) == 0 {
		return
	}
	slowest := slices.MinFunc(candidates, func(a, b *pullJob) int {
		return cmp.Or(cmp.Compare(a.Progress.Done, b.Progress.Done), cmp.Compare(a.key.ref, b.key.ref))
	})
	slowest.stopped = true
	p.slow[registryOf(slowest.key.ref)] = now
	slowest.cancel()
}

func tooSlow(j *pullJob) error {
	return fmt.Errorf("pull image %s: %w: it sent less than %d KiB a second while other images waited, so they are pulled first", j.key.ref, engine.ErrRegistry, slowPace>>10)
}
