package peer

import (
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// Members are the nodes of the cluster, as the server told of them last. A certificate outlives its node: an agent
// accepts it only as long as the server does.
type Members struct {
	mu        sync.RWMutex
	notBefore map[string]time.Time // nil: the server has not told
}

// Set replaces the members: for each node, the earliest beginning of a certificate that is accepted. Without any, the
// server is an older one that does not tell, and every certificate of the cluster is accepted.
func (m *Members) Set(notBefore map[string]time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notBefore = notBefore
}

// check refuses a certificate of a node that was deleted, or that joined again with another key.
func (m *Members) check(node string, certificate *x509.Certificate) error {
	if m == nil {
		return nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.notBefore) == 0 {
		return nil
	}
	from, ok := m.notBefore[node]
	switch {
	case !ok:
		return fmt.Errorf("the server accepts no certificate of node %q: it was deleted, or it has not joined yet", node)
	case certificate.NotBefore.Before(from):
		return fmt.Errorf("node %q has joined again since this certificate was issued", node)
	}
	return nil
}
