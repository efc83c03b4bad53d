package dispatch

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Values reads the values of Secrets and certificates that agents get.
type Values struct{ DB *state.DB }

// Assignment is a project with the secret values that its services use, and no others. It leaves out a value that does not
// exist or whose Secret a source uses for git, webhooks or decryption. The agent reports which value is missing.
func (s Values) Assignment(p *carav1.Project) *carav1.Assignment {
	out := &carav1.Assignment{Project: proto.CloneOf(p)}
	if p.GetStatus().GetPhase() == api.PhaseTerminating {
		return out
	}
	out.Secrets, out.SecretVersions, out.RegistryAuth = map[string][]byte{}, map[string]string{}, map[string]*carav1.RegistryAuth{}
	withheld := rules.SourceSecrets(s.DB.Cache)
	for _, use := range api.SecretUses(p.GetSpec()) {
		if withheld[use.Name] != "" || use.Key == "" {
			continue
		}
		if value, ok := s.value(use.Name, use.Key); ok {
			name := rules.SealName(use.Name, use.Key)
			out.Secrets[name], out.SecretVersions[name] = value, s.DB.Vault.Version(name, value)
		}
	}
	for _, name := range p.GetSpec().GetImagePullSecrets() {
		if source := withheld[name]; source != "" {
			out.PullSecrets = append(out.PullSecrets, &carav1.PullSecret{Name: name, Problem: "belongs to source " + source + ", and no project may use it"})
			continue
		}
		s.pullSecret(out, name)
	}
	s.backupSecret(out, p.GetSpec().GetBackup().GetSecretRef())
	return out
}

// backupSecret adds the values of the Secret that a project's backups use: all that a Secret of its type can have. They get no
// versions, because no container depends on them.
func (s Values) backupSecret(out *carav1.Assignment, name string) {
	if name == "" {
		return
	}
	if out.BackupProblem = rules.BackupSecretProblem(s.DB.Cache, name); out.BackupProblem != "" {
		return
	}
	for key, value := range s.backupValues(name) {
		out.Secrets[rules.SealName(name, key)] = value
	}
}

// backupValues returns the values of a Secret of type backup, by key.
func (s Values) backupValues(name string) map[string][]byte {
	values := map[string][]byte{}
	for _, key := range api.BackupKeys() {
		if value, ok := s.value(name, key); ok {
			values[key] = value
		}
	}
	return values
}

// pullSecret adds the registry logins of a Secret in imagePullSecrets. If two are for one registry, the first one is used.
func (s Values) pullSecret(out *carav1.Assignment, name string) {
	said := &carav1.PullSecret{Name: name}
	out.PullSecrets = append(out.PullSecrets, said)
	if _, exists := state.Get[*carav1.Secret](s.DB.Cache, name); !exists {
		said.Missing, said.Problem = true, "does not exist"
		return
	}
	server, okServer := s.value(name, "server")
	user, okUser := s.value(name, "username")
	password, okPassword := s.value(name, "password")
	registry := syntax.Registry(string(server))
	switch {
	case !okServer || !okUser || !okPassword:
		said.Problem = "needs the keys server, username and password, as a Secret of type registry has them"
	case registry == "":
		said.Problem = "names no registry in its key server; write a host such as registry.example.com:5000"
	case out.RegistryAuth[registry] != nil:
		said.Problem = "is for the same registry as one before it in imagePullSecrets, which counts"
	default:
		said.Registry = registry
		out.RegistryAuth[registry] = &carav1.RegistryAuth{Username: string(user), Password: string(password)}
	}
}

// secretVersion changes if and only if a value or the type of the Secret changes.
func (s Values) secretVersion(name string) string {
	secret, ok := state.Get[*carav1.Secret](s.DB.Cache, name)
	if !ok {
		return "missing"
	}
	var all strings.Builder
	all.WriteString(secret.GetType() + ":")
	for _, key := range slices.Sorted(maps.Keys(secret.GetData())) {
		if value, ok := s.value(name, key); ok {
			all.WriteString(key + "=" + s.DB.Vault.Version(rules.SealName(name, key), value) + ",")
		}
	}
	return all.String()
}

// value decrypts one value of a secret, if it exists. If decryption fails, value logs the error, because no caller waits
// for it, and the agent reports the value as missing.
func (s Values) value(name, key string) ([]byte, bool) {
	secret, ok := state.Get[*carav1.Secret](s.DB.Cache, name)
	if !ok || secret.GetData()[key] == nil {
		return nil, false
	}
	value, err := rules.SecretValue(s.DB.Vault, secret, key)
	if err != nil {
		s.DB.Logger.Error("secret cannot be opened", "secret", name, "key", key, "error", err)
		return nil, false
	}
	return value, true
}

// secretCertificate returns the certificate of a Secret for those of the hosts that it has a name for, or nil if there is none.
func (s Values) secretCertificate(name string, hosts []string) *carav1.Certificate {
	if len(hosts) == 0 || !s.secretHasType(name, api.SecretTLS) {
		return nil
	}
	chain, okChain := s.value(name, api.TLSCertificateKey)
	key, okKey := s.value(name, api.TLSPrivateKey)
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
func (s Values) storedCertificate(id string) *carav1.Certificate {
	stored, ok := state.Get[*carav1.Certificate](s.DB.Cache, id)
	if !ok || s.DB.Vault == nil {
		return nil
	}
	key, err := s.DB.Vault.Open(state.CertificateSeal(id), stored.GetKey())
	if err != nil {
		s.DB.Logger.Error("certificate cannot be opened", "certificate", id, "error", err)
		return nil
	}
	out := proto.CloneOf(stored)
	out.Key = key
	return out
}

// passwordList returns the users of a Secret of type basicAuth, or nil.
func (s Values) passwordList(name string) *carav1.PasswordList {
	list, _ := rules.PasswordList(s.DB.Cache, s.DB.Vault, name)
	return list
}

func (s Values) secretHasType(name, kind string) bool {
	secret, ok := state.Get[*carav1.Secret](s.DB.Cache, name)
	return ok && secret.GetType() == kind
}
