package peer

import (
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// Members are the nodes of the cluster, as last sent by the server. A certificate may outlive its node, so an agent accepts
// it only as long as the server does.
type Members struct {
	mu        sync.RWMutex
	notBefore map[string]time.Time // nil until the server has sent it
}

// Set replaces the members: for each node, the earliest NotBefore of an accepted certificate. An empty map comes from an
// older server that does not send members; then every certificate of the cluster is accepted.
func (m *Members) Set(notBefore map[string]time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notBefore = notBefore
}

// check returns an error for the certificate of a node that was deleted, or that joined again with another key.
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
