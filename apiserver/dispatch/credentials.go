package dispatch

import (
	"context"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxCredentials limits the size of one message, in bytes. The complete list of a large cluster needs several messages.
const maxCredentials = 1 << 20

// credentialFeed sends one agent the certificates, passwords and challenges that it needs to serve ingress, according to its
// capabilities. As the route feed, it records what may have changed and computes a message when it sends it.
type credentialFeed struct {
	server *Dispatcher
	me     *Session
	feed

	projects map[string]struct{} // that may have changed; guarded by mu, as dirty
	dirty    map[credential]struct{}

	sending sync.Mutex // held while sending; guards the fields below
	uses    ingressSecrets
	sent    map[credential]proto.Message // what the agent has
}

// credential is the kind of a message, such as Certificate, and its id.
type credential struct{ kind, id string }

const kindPasswordList = "PasswordList"

func newCredentialFeed(d *Dispatcher, me *Session) *credentialFeed {
	return &credentialFeed{
		server: d, me: me, feed: newFeed(), projects: map[string]struct{}{}, dirty: map[credential]struct{}{},
		uses: newIngressSecrets(), sent: map[credential]proto.Message{},
	}
}

// serves reports whether the agent needs any credentials.
func (f *credentialFeed) serves() bool {
	return f.me.can(api.CapabilityIngress) || f.me.can(api.CapabilityPublicIngress)
}

// change records what a change of an object may mean.
func (f *credentialFeed) change(ch *state.Change) {
	switch ch.Kind {
	case api.KindProject:
		f.project(ch.Name)
	case api.KindSecret:
		f.changed(credential{state.KindCertificate, secretCertificate(ch.Name)}, credential{kindPasswordList, ch.Name})
	case state.KindCertificate, state.KindChallenge:
		f.changed(credential{ch.Kind, ch.Name})
	case api.KindSource: // it may use a Secret that projects use
		old, now := state.As[*carav1.Source](ch.Old), state.As[*carav1.Source](ch.New)
		if slices.Equal(api.SourceSecretNames(old.GetSpec()), api.SourceSecretNames(now.GetSpec())) {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.projects[""] = struct{}{}
		f.note()
	}
}

// project records that a project may use other Secrets or hosts.
func (f *credentialFeed) project(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.projects[name] = struct{}{}
	f.note()
}

func (f *credentialFeed) changed(all ...credential) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range all {
		f.dirty[c] = struct{}{}
	}
	f.note()
}

// full sends the complete list once, before any change.
func (f *credentialFeed) full() error {
	if !f.serves() {
		return nil
	}
	certificates, _ := state.List[*carav1.Certificate](f.server.DB.Cache, "", "")
	for _, c := range certificates {
		f.changed(credential{state.KindCertificate, c.GetId()})
	}
	challenges, _ := state.List[*carav1.Challenge](f.server.DB.Cache, "", "")
	for _, c := range challenges {
		f.changed(credential{state.KindChallenge, c.GetToken()})
	}
	if err := f.flush(true); err != nil {
		return err
	}
	f.begin()
	return nil
}

// run sends changes until ctx ends.
func (f *credentialFeed) run(ctx context.Context) error {
	if !f.serves() {
		return nil
	}
	return f.feed.run(ctx, func() error { return f.flush(false) })
}

// flush sends the difference to what was sent before.
func (f *credentialFeed) flush(full bool) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	f.mu.Lock()
	projects, dirty := f.projects, f.dirty
	f.projects, f.dirty = map[string]struct{}{}, map[credential]struct{}{}
	f.mu.Unlock()
	if _, all := projects[""]; all {
		for _, name := range f.uses.names() {
			dirty[credential{state.KindCertificate, secretCertificate(name)}] = struct{}{}
			dirty[credential{kindPasswordList, name}] = struct{}{}
		}
		delete(projects, "")
	}
	for name := range projects {
		p, _ := state.Get[*carav1.Project](f.server.DB.Cache, name)
		for _, secret := range f.uses.put(name, p, f.server.DB.Hosts.Template) {
			dirty[credential{state.KindCertificate, secretCertificate(secret)}] = struct{}{}
			dirty[credential{kindPasswordList, secret}] = struct{}{}
		}
	}
	return f.send(full, dirty)
}

// send sends these credentials if the agent does not have them as they are. sending must be held.
func (f *credentialFeed) send(full bool, dirty map[credential]struct{}) error {
	msg, some := &carav1.Credentials{Full: full}, full
	out := func(more bool) error {
		msg.More = more
		err := f.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Credentials{Credentials: msg}})
		msg = &carav1.Credentials{}
		return err
	}
	withheld, size := objects.SourceSecrets(f.server.DB.Cache), 0
	for _, c := range slices.SortedFunc(maps.Keys(dirty), credential.compare) {
		now := f.current(c, withheld)
		if now == nil && f.sent[c] == nil || now != nil && f.sent[c] != nil && proto.Equal(now, f.sent[c]) {
			continue
		}
		if size > maxCredentials {
			if err := out(full); err != nil {
				return err
			}
			size = 0
		}
		addCredential(msg, c, now)
		some = true
		if size += len(c.id); now == nil {
			delete(f.sent, c)
			continue
		}
		size += proto.Size(now)
		f.sent[c] = now
	}
	if !some {
		return nil
	}
	return out(false)
}

// current returns a credential as the agent should have it, or nil if it should not have it.
func (f *credentialFeed) current(c credential, withheld map[string]string) proto.Message {
	public := f.me.can(api.CapabilityPublicIngress)
	switch c.kind {
	case kindPasswordList:
		if f.me.can(api.CapabilityIngress) && f.uses.lists[c.id] > 0 && withheld[c.id] == "" {
			return orNone(f.server.passwordList(c.id))
		}
	case state.KindChallenge:
		if m, ok := state.Get[*carav1.Challenge](f.server.DB.Cache, c.id); ok && public {
			return m
		}
	case state.KindCertificate:
		if name, ok := certificateSecret(c.id); ok && public && withheld[name] == "" {
			return orNone(f.server.secretCertificate(name, f.uses.hosts(name)))
		} else if !ok && public {
			return orNone(f.server.storedCertificate(c.id))
		}
	}
	return nil
}

// orNone returns nil for a nil pointer.
func orNone[T interface {
	comparable
	proto.Message
}](m T) proto.Message {
	var zero T
	if m == zero {
		return nil
	}
	return m
}

// addCredential adds a credential to a message, or its removal if it is nil.
func addCredential(msg *carav1.Credentials, c credential, m proto.Message) {
	switch m := m.(type) {
	case *carav1.Certificate:
		msg.Certificates = append(msg.Certificates, m)
	case *carav1.PasswordList:
		msg.PasswordLists = append(msg.PasswordLists, m)
	case *carav1.Challenge:
		msg.Challenges = append(msg.Challenges, m)
	default:
		switch c.kind {
		case state.KindCertificate:
			msg.RemovedCertificates = append(msg.RemovedCertificates, c.id)
		case kindPasswordList:
			msg.RemovedPasswordLists = append(msg.RemovedPasswordLists, c.id)
		case state.KindChallenge:
			msg.RemovedChallenges = append(msg.RemovedChallenges, c.id)
		}
	}
}

// secretCertificate returns the certificate of a Secret for those of the hosts that it has a name for, or nil if there is none.
func (d *Dispatcher) secretCertificate(name string, hosts []string) *carav1.Certificate {
	if len(hosts) == 0 || !d.secretHasType(name, api.SecretTLS) {
		return nil
	}
	chain, okChain := d.value(name, api.TLSCertificateKey)
	key, okKey := d.value(name, api.TLSPrivateKey)
	if !okChain || !okKey {
		return nil
	}
	pair, err := api.ParseCertificate(chain, key)
	if err != nil {
		return nil // an older server stored it without a check
	}
	hosts = slices.DeleteFunc(hosts, func(host string) bool { return pair.Leaf.VerifyHostname(host) != nil })
	if len(hosts) == 0 {
		return nil
	}
	return &carav1.Certificate{Id: secretCertificate(name), Names: hosts, Chain: chain, Key: key, NotAfter: timestamppb.New(pair.Leaf.NotAfter)}
}

// storedCertificate returns a certificate that the server has obtained, with its key, or nil.
func (d *Dispatcher) storedCertificate(id string) *carav1.Certificate {
	stored, ok := state.Get[*carav1.Certificate](d.DB.Cache, id)
	if !ok || d.DB.Vault == nil {
		return nil
	}
	key, err := d.DB.Vault.Open(state.CertificateSeal(id), stored.GetKey())
	if err != nil {
		d.DB.Logger.Error("certificate cannot be opened", "certificate", id, "error", err)
		return nil
	}
	out := proto.CloneOf(stored)
	out.Key = key
	return out
}

// passwordList returns the users of a Secret of type basicAuth, or nil.
func (d *Dispatcher) passwordList(name string) *carav1.PasswordList {
	text, ok := d.value(name, api.BasicAuthUsers)
	if !ok || !d.secretHasType(name, api.SecretBasicAuth) {
		return nil
	}
	users, err := api.ParseUsers(text)
	if err != nil {
		return nil // an older server stored it without a check
	}
	return &carav1.PasswordList{Id: name, Users: users}
}

func (d *Dispatcher) secretHasType(name, kind string) bool {
	secret, ok := state.Get[*carav1.Secret](d.DB.Cache, name)
	return ok && secret.GetType() == kind
}
