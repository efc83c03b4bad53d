// Package tlsfront chooses the certificates of public hosts. It is the step of a request before its HTTP begins: the client names
// a host in its TLS handshake, and gets the certificate of that host.
//
// Invariants:
//
//   - There is no default certificate. A handshake without a name, or with a name that has no certificate, is refused, so it
//     reveals no name.
//   - A certificate is found in constant time, however many there are. An exact name comes before a wildcard.
//   - A replacement applies to the next handshake. Open connections keep theirs.
//   - TLS 1.2 and later, with forward secrecy and authenticated encryption only. There is no renegotiation. The keys of session
//     tickets stay in memory, and crypto/tls replaces them daily.
package tlsfront

import (
	"crypto/tls"
	"slices"
	"strings"
	"sync"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Table holds certificates by name. Its zero value is empty.
type Table struct {
	mu     sync.RWMutex
	byID   map[string]*entry
	byName map[string][]*entry // the one that ends last is first
}

type entry struct {
	certificate *tls.Certificate
	names       []string
}

// Put adds a certificate or replaces the one with the same id. Errors contain no part of the key.
func (t *Table) Put(c *carav1.Certificate) error {
	pair, err := api.ParseCertificate(c.GetChain(), c.GetKey())
	if err != nil {
		return err
	}
	e := &entry{certificate: pair}
	for _, name := range c.GetNames() {
		e.names = append(e.names, strings.ToLower(name))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(c.GetId())
	if t.byID == nil {
		t.byID, t.byName = map[string]*entry{}, map[string][]*entry{}
	}
	t.byID[c.GetId()] = e
	for _, name := range e.names {
		all := append(slices.Clone(t.byName[name]), e)
		slices.SortStableFunc(all, func(a, b *entry) int { return b.certificate.Leaf.NotAfter.Compare(a.certificate.Leaf.NotAfter) })
		t.byName[name] = all
	}
	return nil
}

// Remove removes a certificate.
func (t *Table) Remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(id)
}

// remove removes a certificate. mu is held.
func (t *Table) remove(id string) {
	e, ok := t.byID[id]
	if !ok {
		return
	}
	delete(t.byID, id)
	for _, name := range e.names {
		t.byName[name] = slices.DeleteFunc(slices.Clone(t.byName[name]), func(other *entry) bool { return other == e })
		if len(t.byName[name]) == 0 {
			delete(t.byName, name)
		}
	}
}

// Find returns the certificate for a host name in lower case, or nil.
func (t *Table) Find(name string) *tls.Certificate {
	if name == "" {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if all := t.byName[name]; len(all) > 0 {
		return all[0].certificate
	}
	if _, rest, ok := strings.Cut(name, "."); ok {
		if all := t.byName["*."+rest]; len(all) > 0 {
			return all[0].certificate
		}
	}
	return nil
}

// Config returns the configuration of a public listener.
func (t *Table) Config() *tls.Config {
	find := func(hello *tls.ClientHelloInfo) *tls.Certificate { return t.Find(strings.ToLower(hello.ServerName)) }
	serve, refuse := config(), config()
	serve.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return find(hello), nil }
	// Without a certificate, crypto/tls refuses the handshake with unrecognized_name. It must not resume a session either.
	refuse.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	refuse.SessionTicketsDisabled = true
	serve.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if find(hello) == nil {
			return refuse, nil
		}
		return nil, nil // this configuration, whose ticket keys are kept
	}
	return serve
}

// config has what all handshakes have in common: Mozilla's intermediate profile without finite-field Diffie-Hellman.
func config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		CipherSuites: []uint16{ // of TLS 1.2; those of TLS 1.3 are all good
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}
