package agent

import (
	"sync"

	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// released are the projects that this node has given up while another node waits for them. The next heartbeat names them. If that is lost,
// because the stream breaks, the server asks again on the next stream.
type released struct {
	beat chan<- struct{}

	mu   sync.Mutex
	left []*carav1.Released
}

// add names a project of which nothing is left, if the server waits to hear that.
func (r *released) add(want *step.Want) {
	if want.Epoch == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = append(r.left, &carav1.Released{Name: want.Project, Uid: want.UID, Epoch: want.Epoch})
	kick(r.beat)
}

// take returns what the next heartbeat names, once.
func (r *released) take() []*carav1.Released {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.left
	r.left = nil
	return left
}
