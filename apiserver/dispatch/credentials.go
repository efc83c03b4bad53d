package dispatch

import (
	"crypto/sha256"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxCredentials limits the size of one message, in bytes. The complete list of a large cluster needs several messages.
const maxCredentials = 1 << 20

// credential is the kind of a message, such as Certificate, and its id.
type credential struct{ kind, id string }

const kindPasswordList = "PasswordList"

// ofSecret returns the credentials that a Secret may have.
func ofSecret(name string) []credential {
	return []credential{{state.KindCertificate, secretCertificate(name)}, {kindPasswordList, name}}
}

// getsCredentials reports whether the agent gets any credentials.
func (f *routeFeed) getsCredentials() bool {
	return f.wants != wantsNone && (f.me.can(api.CapabilityIngress) || f.me.can(api.CapabilityPublicIngress))
}

// noteAllSecrets records that a source uses a Secret now, or no longer.
func (f *routeFeed) noteAllSecrets() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allSecrets = true
	f.note()
}

// noteAllCredentials records the credentials that the agent may need, besides those of its hosts.
func (f *routeFeed) noteAllCredentials() {
	for _, c := range state.List[*carav1.Challenge](f.server.DB.Cache, "") {
		f.noteCredentials(credential{state.KindChallenge, c.GetToken()})
	}
	if f.wants != wantsAll {
		return
	}
	for _, c := range state.List[*carav1.Certificate](f.server.DB.Cache, "") {
		f.noteCredentials(credential{state.KindCertificate, c.GetId()})
	}
	f.noteAllSecrets()
}

// sendCredentials sends the credentials that have changed, or that the agent needs now or no longer. sending must be held.
func (f *routeFeed) sendCredentials(full bool, changed *changes) error {
	if !f.getsCredentials() {
		return nil
	}
	dirty := changed.credentials
	if changed.allSecrets {
		for _, name := range f.server.Routes.secretNames() {
			for _, c := range ofSecret(name) {
				dirty[c] = struct{}{}
			}
		}
	}
	if len(dirty) == 0 && !full {
		return nil
	}
	msg, some := &carav1.Credentials{Full: full}, full
	out := func(more bool) error {
		msg.More = more
		err := f.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Credentials{Credentials: msg}})
		msg = &carav1.Credentials{}
		return err
	}
	withheld, size := rules.SourceSecrets(f.server.DB.Cache), 0
	for _, c := range slices.SortedFunc(maps.Keys(dirty), credential.compare) {
		now := f.current(c, withheld)
		if !f.differs(c, now) {
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
		if size += len(c.id); now != nil {
			size += proto.Size(now)
		}
	}
	if !some {
		return nil
	}
	return out(false)
}

// differs reports whether the agent does not have a credential as it is now, and records that it has. now is nil if the agent
// should not have it. sending must be held.
func (f *routeFeed) differs(c credential, now proto.Message) bool {
	before, had := f.sent[c]
	if now == nil {
		delete(f.sent, c)
		return had
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(now)
	if err != nil { // only for a text that is not UTF-8, which validation excludes
		return false
	}
	sum := sha256.Sum256(encoded)
	f.sent[c] = sum
	return !had || sum != before
}

// current returns a credential as the agent should have it, or nil if it should not have it. sending must be held.
func (f *routeFeed) current(c credential, withheld map[string]string) proto.Message {
	public := f.me.can(api.CapabilityPublicIngress)
	if c.kind == state.KindChallenge {
		if m, ok := state.Get[*carav1.Challenge](f.server.DB.Cache, c.id); ok && public {
			return m
		}
		return nil
	}
	if f.wants == wantsSome && f.needed[c] == 0 {
		return nil
	}
	switch name, ofSecret := certificateSecret(c.id); {
	case c.kind == kindPasswordList:
		if f.me.can(api.CapabilityIngress) && f.server.Routes.usesList(c.id) && withheld[c.id] == "" {
			return orNone(f.server.Values().passwordList(c.id))
		}
	case !public:
	case !ofSecret:
		return orNone(f.server.Values().storedCertificate(c.id))
	case withheld[name] == "":
		return orNone(f.server.Values().secretCertificate(name, f.server.Routes.secretHosts(name)))
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
