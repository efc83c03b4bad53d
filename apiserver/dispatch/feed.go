package dispatch

import (
	"sync"
	"time"
)

// feedDelay collects changes of routes: a push that starts twenty projects makes a few messages, not twenty.
const feedDelay = 5 * time.Millisecond

// feed wakes the goroutine that sends an agent what has changed. What has changed is recorded beside it, under the same mutex.
type feed struct {
	noted chan struct{} // has one entry while there is something to send

	mu    sync.Mutex
	ready bool // the complete state has been sent
}

func newFeed() feed { return feed{noted: make(chan struct{}, 1)} }

// note wakes the sender. mu must be held.
func (f *feed) note() {
	if !f.ready {
		return
	}
	select {
	case f.noted <- struct{}{}:
	default:
	}
}

// wake wakes the sender without a recorded change.
func (f *feed) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note()
}

// begin lets changes wake the sender, after the complete state has been sent.
func (f *feed) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = true
	f.note() // for what was recorded while the complete state was sent
}
