package ports

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// report is what the agent tells the server about its ports.
type report struct {
	changes chan struct{} // has an entry after the report has changed

	mu     sync.Mutex
	latest *carav1.PortReport
}

func (r *report) set(ports []*carav1.NodePort) {
	slices.SortFunc(ports, func(a, b *carav1.NodePort) int { return keyOf(a).Compare(keyOf(b)) })
	next := &carav1.PortReport{Ports: ports}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !proto.Equal(r.latest, next) {
		r.latest = next
		kick(r.changes)
	}
}

func keyOf(n *carav1.NodePort) api.PortKey {
	return api.PortKey{Protocol: n.GetProtocol(), Port: n.GetPort(), Scope: n.GetScope()}
}
