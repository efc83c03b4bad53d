package ingress

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/ingress/basicauth"
	"github.com/caravanserai/cara/agent/ingress/tlsfront"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// credentials are what the routes need besides the table: certificates, passwords and the answers for certificate authorities. The
// server sends only those that this agent can serve.
type credentials struct {
	certificates tlsfront.Table
	known        atomic.Pointer[known]

	mu   sync.Mutex // serialises changes
	told bool       // the server has sent them
	all  *held      // what is kept on disk
	list *held      // the ids of the complete list that is arriving; nil if none is
}

// held has messages by id.
type held struct {
	certificates map[string]*carav1.Certificate
	passwords    map[string]*carav1.PasswordList
	challenges   map[string]*carav1.Challenge // by token
}

// known is immutable once it is stored.
type known struct {
	passwords  map[string]*basicauth.List
	challenges map[string]*carav1.Challenge // by token
}

func newHeld() *held {
	return &held{map[string]*carav1.Certificate{}, map[string]*carav1.PasswordList{}, map[string]*carav1.Challenge{}}
}

func newCredentials() *credentials {
	c := &credentials{all: newHeld()}
	c.known.Store(&known{})
	return c
}

// ApplyCredentials changes the certificates, passwords and challenges.
func (i *Ingress) ApplyCredentials(change *carav1.Credentials) {
	c := i.credentials
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true
	i.applyCredentials(change)
	i.credentialsFile.Changed()
}

// applyCredentials applies a change. mu is held.
func (i *Ingress) applyCredentials(change *carav1.Credentials) {
	c := i.credentials
	if change.GetFull() {
		c.list = newHeld()
	}
	for _, id := range change.GetRemovedCertificates() {
		c.certificates.Remove(id)
		delete(c.all.certificates, id)
	}
	for _, m := range change.GetCertificates() {
		if err := c.certificates.Put(m); err != nil {
			i.cfg.Logger.Error("certificate not used", "certificate", m.GetId(), "error", err)
			continue
		}
		c.all.certificates[m.GetId()] = m
	}
	for _, id := range change.GetRemovedPasswordLists() {
		delete(c.all.passwords, id)
	}
	for _, token := range change.GetRemovedChallenges() {
		delete(c.all.challenges, token)
	}
	c.all.add(change)
	if c.list != nil {
		c.list.add(change)
		for _, m := range change.GetCertificates() {
			c.list.certificates[m.GetId()] = m
		}
		if !change.GetMore() {
			c.forget()
		}
	}
	next := &known{passwords: make(map[string]*basicauth.List, len(c.all.passwords)), challenges: maps.Clone(c.all.challenges)}
	before := c.known.Load().passwords
	for id, m := range c.all.passwords {
		if next.passwords[id] = before[id]; before[id] == nil || slices.ContainsFunc(change.GetPasswordLists(), func(p *carav1.PasswordList) bool { return p.GetId() == id }) {
			next.passwords[id] = basicauth.NewList(m.GetUsers())
		}
	}
	c.known.Store(next)
}

// add adds the passwords and challenges of a change.
func (h *held) add(change *carav1.Credentials) {
	for _, m := range change.GetPasswordLists() {
		h.passwords[m.GetId()] = m
	}
	for _, m := range change.GetChallenges() {
		h.challenges[m.GetToken()] = m
	}
}

// forget removes what the complete list does not have. mu is held.
func (c *credentials) forget() {
	for id := range c.all.certificates {
		if _, ok := c.list.certificates[id]; !ok {
			c.certificates.Remove(id)
			delete(c.all.certificates, id)
		}
	}
	maps.DeleteFunc(c.all.passwords, func(id string, _ *carav1.PasswordList) bool { return c.list.passwords[id] == nil })
	maps.DeleteFunc(c.all.challenges, func(token string, _ *carav1.Challenge) bool { return c.list.challenges[token] == nil })
	c.list = nil
}

// Answering returns the tokens of the challenges that this agent answers, sorted.
func (i *Ingress) Answering() []string {
	return slices.Sorted(maps.Keys(i.credentials.known.Load().challenges))
}

// challengePath begins the paths on which certificate authorities validate a host.
const challengePath = "/.well-known/acme-challenge/"

// challenge returns the answer for a certificate authority, if a request for this host and path is one of its validations.
func (c *credentials) challenge(host, path string) (answer string, ok bool) {
	token, ok := strings.CutPrefix(path, challengePath)
	if !ok {
		return "", false
	}
	m := c.known.Load().challenges[token]
	if m == nil || !strings.EqualFold(m.GetHost(), host) {
		return "", false
	}
	return m.GetKeyAuthorization(), true
}

// stored returns what is kept on disk. Challenges are left out: they end within minutes.
func (c *credentials) stored() proto.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &carav1.Credentials{
		Full:         true,
		Certificates: slices.Collect(maps.Values(c.all.certificates)), PasswordLists: slices.Collect(maps.Values(c.all.passwords)),
	}
}
