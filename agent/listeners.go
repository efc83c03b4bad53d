package agent

import "sync"

// listeners are told when something may have happened to a project.
type listeners struct {
	mu       sync.Mutex
	projects map[chan struct{}]string
}

// listen returns a channel that gets a value when something may have happened to a project, until stop is called.
func (l *listeners) listen(project string) (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.projects[c] = project
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.projects, c)
	}
}

func (l *listeners) wake(project string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, name := range l.projects {
		if name == project {
			kick(c)
		}
	}
}

// kick puts a value into a channel with room for one, unless there is one already.
func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
