package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// assignments is what was sent to one connected agent. It belongs to the goroutine that sends. It compares with the
// current state and not with single changes: if an object changed twice, it is sent once.
type assignments struct {
	server *Dispatcher
	me     *Session
	news   *assignmentFeed
	sent   map[string]sentAssignment // by project
	asked  map[string]int32          // by project that this node holds: the epoch that it was asked to release
	doomed map[string]bool           // volumes that it was asked to delete, by uid: whether it had reported them
	copies map[string]bool           // uids of the volumes that it was told to receive
	// restores holds the requests to restore a volume, by uid, so that a changed Secret is sent again.
	restores map[string]restoreRequest
}

// sentAssignment is what the agent knows about a project. It shows whether the project must be sent again.
type sentAssignment struct {
	uid     string
	version string
}

// project sends the agent what is new about a project.
func (a *assignments) project(name string) error {
	p, ok := state.Get[*carav1.Project](a.server.DB.Cache, name)
	if err := a.held(name, p); err != nil {
		return err
	}
	sent, known := a.sent[name]
	if ok && !assignedTo(p, a.me.Node) {
		ok = false
	}
	if known && (!ok || p.GetMetadata().GetUid() != sent.uid) {
		delete(a.sent, name)
		known = false
		err := a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Unassigned{
			Unassigned: &carav1.Unassigned{Name: name, Uid: sent.uid},
		}})
		if err != nil {
			return err
		}
	}
	if !ok {
		return nil
	}
	now := a.describe(p)
	if known && now.version == sent.version {
		return nil
	}
	a.sent[name] = now
	out := a.server.Assignment(p)
	switch m := out.GetProject().GetStatus().GetMove(); {
	case m.GetRestore() != nil:
		out.Project.Status.Move = nil // the agent's part of a restore is RestoreVolume
	case m != nil:
		m.Address = a.moveAddress(m)
	}
	return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Assignment{Assignment: out}})
}

// moveAddress returns the address where the agent reaches the new node of a move, or "" if it cannot.
func (a *assignments) moveAddress(m *carav1.Move) string {
	n, _ := state.Get[*carav1.Node](a.server.DB.Cache, m.GetTo())
	return ingressAddress(n, a.me.here)
}

// held asks the agent to report when nothing is left of a project that already has another node. It asks once for each
// epoch. The assignment is revoked after that and needs no second request.
func (a *assignments) held(name string, p *carav1.Project) error {
	if p.GetStatus().GetHeldBy() != a.me.Node {
		delete(a.asked, name)
		return nil
	}
	epoch := p.GetStatus().GetEpoch()
	if asked, ok := a.asked[name]; ok && asked == epoch {
		return nil
	}
	a.asked[name] = epoch
	delete(a.sent, name)
	return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Unassigned{
		Unassigned: &carav1.Unassigned{Name: name, Uid: p.GetMetadata().GetUid(), Epoch: epoch},
	}})
}

// dooms reports whether to ask the agent now to delete a volume, and records that. If the agent has a volume after all that it
// did not have at first, it has forgotten the first request.
func (a *assignments) dooms(uid string, made bool) bool {
	before, asked := a.doomed[uid]
	a.doomed[uid] = made
	return !asked || made && !before
}

// volume asks the agent to delete a volume, to receive it from another node or to restore it, once in a session.
func (a *assignments) volume(name string) error {
	v, _ := state.Get[*carav1.Volume](a.server.DB.Cache, name)
	uid := v.GetMetadata().GetUid()
	if v.GetStatus().GetNode() != a.me.Node {
		return nil
	}
	switch st := v.GetStatus().GetState(); {
	case st == api.VolumeDeleting && a.dooms(uid, v.GetStatus().GetMade()):
		return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_RemoveVolume{RemoveVolume: &carav1.RemoveVolume{
			Uid: uid, Project: v.GetSpec().GetProject(), Name: v.GetSpec().GetName(), Unused: v.GetStatus().GetCopy(),
		}}})
	case st == api.VolumeCopying && v.GetStatus().GetRestoredFrom() != nil:
		return a.restore(v)
	case st == api.VolumeCopying && !a.copies[uid]:
		a.copies[uid] = true
		p, _ := state.Get[*carav1.Project](a.server.DB.Cache, v.GetSpec().GetProject())
		return a.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_ReceiveVolume{ReceiveVolume: &carav1.ReceiveVolume{
			Uid: uid, Project: v.GetSpec().GetProject(), Name: v.GetSpec().GetName(), Owner: v.GetStatus().GetOwner(),
			From: p.GetStatus().GetMove().GetFrom(),
		}}})
	}
	return nil
}

// assignedTo reports whether a node has work with a project: run it, keep what is left of it, or tear it down. It is false
// while another node holds the project.
func assignedTo(p *carav1.Project, node string) bool {
	if p.GetStatus().GetNodeRef() != node || p.GetStatus().GetHeldBy() != "" {
		return false
	}
	switch p.GetStatus().GetPhase() {
	case api.PhaseScheduled, api.PhaseRunning, api.PhaseFailed, api.PhaseTerminating:
		return true
	}
	return false
}

// describe leaves out what the agent itself reports. The only phase that counts is Terminating: the agent makes the other
// moves itself, or they come with a new generation or epoch.
func (a *assignments) describe(p *carav1.Project) sentAssignment {
	meta, st := p.GetMetadata(), p.GetStatus()
	terminating := st.GetPhase() == api.PhaseTerminating
	out := sentAssignment{
		uid: meta.GetUid(),
		version: fmt.Sprintf("%s %d %d %q %q %t %t %q", meta.GetUid(), meta.GetGeneration(), st.GetEpoch(),
			st.GetRestartToken(), api.Restarts(p), terminating, meta.GetDeletionTimestamp() != nil, st.GetBackupToken()),
	}
	for _, u := range st.GetVolumes() {
		out.version += " " + u.GetUid()
	}
	if m := st.GetMove(); m.GetStep() == api.MoveCopying || m.GetStep() == api.MoveSwitching {
		out.version += fmt.Sprintf(" %s %s %d %s", m.GetId(), m.GetStep(), m.GetAttempts(), a.moveAddress(m))
	}
	if terminating {
		return out // teardown needs no secrets
	}
	out.version += fmt.Sprintf(" %t", api.ManualSecrets(p))
	for _, name := range api.SecretNames(p.GetSpec()) {
		out.version += " " + name + "@" + a.server.secretVersion(name)
	}
	return out
}

// Assignment is a project with the secret values that its services use, and no others. It leaves out a value that does not
// exist or whose Secret a source uses for git, webhooks or decryption. The agent reports which value is missing.
func (d *Dispatcher) Assignment(p *carav1.Project) *carav1.Assignment {
	out := &carav1.Assignment{Project: proto.CloneOf(p)}
	if p.GetStatus().GetPhase() == api.PhaseTerminating {
		return out
	}
	withheld := rules.SourceSecrets(d.DB.Cache)
	for _, use := range api.SecretUses(p.GetSpec()) {
		if withheld[use.Name] != "" || use.Key == "" {
			continue
		}
		if value, ok := d.value(use.Name, use.Key); ok {
			if out.Secrets == nil {
				out.Secrets, out.SecretVersions = make(map[string][]byte), make(map[string]string)
			}
			name := rules.SealName(use.Name, use.Key)
			out.Secrets[name], out.SecretVersions[name] = value, d.DB.Vault.Version(name, value)
		}
	}
	for _, name := range p.GetSpec().GetImagePullSecrets() {
		if source := withheld[name]; source != "" {
			out.PullSecrets = append(out.PullSecrets, &carav1.PullSecret{Name: name, Problem: "belongs to source " + source + ", and no project may use it"})
			continue
		}
		d.pullSecret(out, name)
	}
	d.backupSecret(out, p.GetSpec().GetBackup().GetSecretRef())
	return out
}

// backupSecret adds the values of the Secret that a project's backups use: all that a Secret of its type can have. They get no
// versions, because no container depends on them.
func (d *Dispatcher) backupSecret(out *carav1.Assignment, name string) {
	if name == "" {
		return
	}
	if out.BackupProblem = rules.BackupSecretProblem(d.DB.Cache, name); out.BackupProblem != "" {
		return
	}
	if out.Secrets == nil {
		out.Secrets = map[string][]byte{}
	}
	for key, value := range d.backupValues(name) {
		out.Secrets[rules.SealName(name, key)] = value
	}
}

// backupValues returns the values of a Secret of type backup, by key.
func (d *Dispatcher) backupValues(name string) map[string][]byte {
	values := map[string][]byte{}
	for _, key := range api.BackupKeys() {
		if value, ok := d.value(name, key); ok {
			values[key] = value
		}
	}
	return values
}

// pullSecret adds the registry logins of a Secret in imagePullSecrets. If two are for one registry, the first one is used.
func (d *Dispatcher) pullSecret(out *carav1.Assignment, name string) {
	said := &carav1.PullSecret{Name: name}
	out.PullSecrets = append(out.PullSecrets, said)
	if _, exists := state.Get[*carav1.Secret](d.DB.Cache, name); !exists {
		said.Missing, said.Problem = true, "does not exist"
		return
	}
	server, okServer := d.value(name, "server")
	user, okUser := d.value(name, "username")
	password, okPassword := d.value(name, "password")
	registry := api.Registry(string(server))
	switch {
	case !okServer || !okUser || !okPassword:
		said.Problem = "needs the keys server, username and password, as a Secret of type registry has them"
	case registry == "":
		said.Problem = "names no registry in its key server; write a host such as registry.example.com:5000"
	case out.RegistryAuth[registry] != nil:
		said.Problem = "is for the same registry as one before it in imagePullSecrets, which counts"
	default:
		said.Registry = registry
		if out.RegistryAuth == nil {
			out.RegistryAuth = make(map[string]*carav1.RegistryAuth)
		}
		out.RegistryAuth[registry] = &carav1.RegistryAuth{Username: string(user), Password: string(password)}
	}
}

// secretVersion changes if and only if a value or the type of the Secret changes.
func (d *Dispatcher) secretVersion(name string) string {
	secret, ok := state.Get[*carav1.Secret](d.DB.Cache, name)
	if !ok {
		return "missing"
	}
	var all strings.Builder
	all.WriteString(secret.GetType() + ":")
	for _, key := range slices.Sorted(maps.Keys(secret.GetData())) {
		if value, ok := d.value(name, key); ok {
			all.WriteString(key + "=" + d.DB.Vault.Version(rules.SealName(name, key), value) + ",")
		}
	}
	return all.String()
}

// value decrypts one value of a secret, if it exists. If decryption fails, value logs the error, because no caller waits
// for it, and the agent reports the value as missing.
func (d *Dispatcher) value(name, key string) ([]byte, bool) {
	secret, ok := state.Get[*carav1.Secret](d.DB.Cache, name)
	if !ok || secret.GetData()[key] == nil {
		return nil, false
	}
	value, err := rules.SecretValue(d.DB.Vault, secret, key)
	if err != nil {
		d.DB.Logger.Error("secret cannot be opened", "secret", name, "key", key, "error", err)
		return nil, false
	}
	return value, true
}
