package agent_test

import (
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// wait waits until done returns true for a project (nil: it is gone).
func (s *server) wait(t testing.TB, name string, done func(*carav1.Project) bool) *carav1.Project {
	t.Helper()
	return s.waitFor(t, name, 3*time.Minute, done)
}

func (s *server) waitFor(t testing.TB, name string, patience time.Duration, done func(*carav1.Project) bool) *carav1.Project {
	t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		p, changed := s.projects[name], s.changed
		s.mu.Unlock()
		if done(p) {
			return p
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("project %s is not there after %s:\n%v", name, patience, p)
		case <-t.Context().Done():
			t.Fatalf("project %s: the test is over:\n%v", name, p)
		}
	}
}

func phase(want string) func(*carav1.Project) bool {
	return func(p *carav1.Project) bool { return p.GetStatus().GetPhase() == want }
}

func gone(p *carav1.Project) bool { return p == nil }
