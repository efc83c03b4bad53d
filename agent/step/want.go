package step

import (
	"cmp"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Want is the desired state of one project on this node. It is immutable.
type Want struct {
	Storage
	SecretValues
	Generation int32
	// Remove means to remove everything. Quiet means that the project is no longer ours, so nothing is reported.
	Remove, Quiet bool
	// Spec is normalised. Nil if Quiet.
	Spec *carav1.ProjectSpec
	// Hashes are the hashes of the services, by name. RunHashes are the same without resources.
	Hashes, RunHashes map[string]string
	// Named are the images as written in the manifest of services that run from a digest instead (see pin), by service. Moved
	// is a message about one that could not.
	Named map[string]string
	Moved string
	// RestartToken is the token of the last restart request. Restarts has the last token of each service that was named in one.
	RestartToken string
	Restarts     map[string]string
	// Said is the server's message of CondReady for this generation, or empty.
	Said string
	// Phase and Failure are the server's for this generation and epoch.
	Phase   string
	Failure *Failure
	// Move is the move to another node that this node must carry out, or nil.
	Move *carav1.Move
	// Limits of restarts.
	Limits RestartLimits
}

// Node is what every assignment needs to know about its node.
type Node struct {
	Cluster, Name string
	Hardening     Hardening
	Restart       RestartLimits
	// HostVolumes are the paths that the node offers to projects.
	HostVolumes []HostVolume
}

// Labels returns the labels of everything that this node's agent creates, and of nothing else.
func (n Node) Labels() map[string]string {
	return map[string]string{api.LabelCluster: n.Cluster, api.LabelNode: n.Name}
}

// ProjectLabels returns the labels of everything that this node's agent creates for a project.
func (n Node) ProjectLabels(project string) map[string]string {
	return map[string]string{api.LabelCluster: n.Cluster, api.LabelNode: n.Name, api.LabelProject: project}
}

// VolumeLabels returns the labels of a Managed volume of this node in the engine.
func (n Node) VolumeLabels(project, volume, uid, owner string) map[string]string {
	return map[string]string{
		api.LabelCluster: n.Cluster, api.LabelNode: n.Name, api.LabelOwner: owner,
		api.LabelVolume: api.VolumeName(project, volume), api.LabelVolumeUID: uid,
	}
}

// NewWant converts an assignment.
func NewWant(n Node, a *carav1.Assignment, haveSecrets bool) *Want {
	p := a.GetProject()
	w := &Want{
		SecretValues: secretsOf(a, haveSecrets), Generation: p.GetMetadata().GetGeneration(),
		Spec: api.Normalize(p.GetSpec()), Hashes: map[string]string{}, RunHashes: map[string]string{}, Named: map[string]string{},
		RestartToken: p.GetStatus().GetRestartToken(), Restarts: api.Restarts(p),
		Phase: p.GetStatus().GetPhase(), Limits: n.Restart,
	}
	if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady); c.GetObservedGeneration() == w.Generation {
		w.Said = c.GetMessage()
	}
	w.Remove = w.Phase == api.PhaseTerminating || w.Phase == api.PhaseTerminated
	w.Storage = newStorage(n, p, w.Spec)
	for _, s := range w.Spec.GetServices() {
		w.Hashes[s.GetName()], w.RunHashes[s.GetName()] = api.ServiceHash(p.GetSpec(), s.GetName()), runHash(p.GetSpec(), s.GetName())
	}
	w.harden(n.Hardening)
	w.pin(p.GetStatus())
	w.setMove(p)
	if bad := append(validate.Violations(p, n.Hardening.AllowCaps), w.notOffered(w.Spec)...); len(bad) > 0 && !w.Remove {
		w.Failure = violation(bad)
		return w
	}
	if w.Phase == api.PhaseFailed && p.GetStatus().GetObservedGeneration() == w.Generation {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase)
		w.Failure = &Failure{Reason: api.Reason(cmp.Or(c.GetReason(), api.ReasonFailed)), Message: c.GetMessage()}
	}
	return w
}

// Unwanted returns the Want of a project that is no longer ours. With an epoch, the server waits for the report that nothing
// is left.
func Unwanted(n Node, project, uid string, epoch int32) *Want {
	of := Assigned{Cluster: n.Cluster, Node: n.Name, Project: project, UID: uid, Epoch: epoch}
	return &Want{Storage: Storage{Assigned: of}, Remove: true, Quiet: true, Limits: n.Restart}
}

// Rollout identifies a rollout. A retry or a changed spec starts a new one.
type Rollout struct {
	uid        string
	epoch      int32
	generation int32
	restart    string
	values     string // of Secrets, see valuesVersion
}

// RolloutOf returns the rollout of an assignment, which may come from disk.
func RolloutOf(a *carav1.Assignment) Rollout {
	p := a.GetProject()
	return Rollout{
		uid: p.GetMetadata().GetUid(), epoch: p.GetStatus().GetEpoch(),
		generation: p.GetMetadata().GetGeneration(), restart: p.GetStatus().GetRestartToken(),
		values: valuesVersion(a.GetSecretVersions(), api.ManualSecrets(p)),
	}
}

// Rollout returns the rollout of w.
func (w *Want) Rollout() Rollout {
	return Rollout{uid: w.UID, epoch: w.Epoch, generation: w.Generation, restart: w.RestartToken, values: valuesVersion(w.SecretVersions, w.ManualSecrets)}
}

// Service returns a service of the project, or nil.
func (w *Want) Service(name string) *carav1.Service {
	i := slices.IndexFunc(w.Spec.GetServices(), func(s *carav1.Service) bool { return s.GetName() == name })
	if i < 0 {
		return nil
	}
	return w.Spec.GetServices()[i]
}

// ordered reports whether the project uses dependsOn, which then alone defines the order.
func (w *Want) ordered() bool {
	return slices.ContainsFunc(w.Spec.GetServices(), func(s *carav1.Service) bool { return len(s.GetDependsOn()) > 0 })
}

// violation returns the failure of an assignment that violates the node's policies. The server rejects such a manifest. If
// it arrives anyway, it is never run.
func violation(bad []*carav1.FieldError) *Failure {
	words := make([]string, len(bad))
	for i, e := range bad {
		words[i] = e.GetField() + ": " + e.GetMessage()
	}
	return &Failure{Reason: api.ReasonPolicyViolation, Message: "this node does not run what breaks its policies: " + strings.Join(words, "; ")}
}

// Hardening are the operator's settings for every container on a node, and what manifests may request.
type Hardening struct {
	// PIDsLimit is the maximum number of processes and threads of a container whose manifest sets no limit. The default is
	// 4,096; negative means no limit. Without a limit, a fork bomb in a container can use up all processes of the machine.
	PIDsLimit int32
	// NoNewPrivileges sets noNewPrivileges for every container, whatever its manifest says.
	NoNewPrivileges bool
	// AllowCaps are the capabilities that manifests may add on this node, in addition to those allowed on every node.
	AllowCaps []string
}

// WithDefaults sets the defaults.
func (h Hardening) WithDefaults() Hardening {
	h.PIDsLimit = cmp.Or(h.PIDsLimit, 4096)
	return h
}

// harden sets what the manifest leaves to the node. It changes w's own copy of the spec after the hashes were computed, so
// that a change of the agent's flags recreates no container: a limit is changed in place, and the rest applies to new
// containers.
func (w *Want) harden(h Hardening) {
	for _, s := range w.Spec.GetServices() {
		s.NoNewPrivileges = s.GetNoNewPrivileges() || h.NoNewPrivileges
		if s.GetResources().GetLimits().GetPids() != 0 || h.PIDsLimit <= 0 {
			continue
		}
		if s.Resources == nil {
			s.Resources = &carav1.Resources{}
		}
		if s.Resources.Limits == nil {
			s.Resources.Limits = &carav1.ResourceList{}
		}
		s.Resources.Limits.Pids = h.PIDsLimit
	}
}
