package step

import (
	"cmp"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/scrub"
)

// Want is what one project should be on this node. It is never changed once it is made.
type Want struct {
	Cluster, Node string
	Project       string
	UID           string
	Epoch         int32
	Generation    int32
	// Remove says that nothing of it may stay. With Quiet the project is no longer ours to report on.
	Remove, Quiet bool
	// Spec is normalised. Nil with Quiet.
	Spec *carav1.ProjectSpec
	// Hashes of the services, by name, and RunHashes of all of each but its resources.
	Hashes, RunHashes map[string]string
	// Named are the images of services that run from a digest instead (see pin), as the manifest has them, by service.
	// Moved says of one that could not.
	Named map[string]string
	Moved string
	// RestartToken is that of the last request for a restart. Restarts has the last one of each service that was named in any.
	RestartToken string
	Restarts     map[string]string
	// Said is the message of CondReady as the server knows it of this generation; empty where there is none.
	Said string
	// Phase and Failure are what the server knows of this generation and epoch.
	Phase   string
	Failure *Failure
	// Secrets by NAME/KEY, Auth by registry host. HaveSecrets is false for an assignment that was read from disk: they
	// are never kept there.
	HaveSecrets bool
	Secrets     map[string][]byte
	Auth        map[string]*carav1.RegistryAuth
	// SecretVersions of the values in Secrets, also of an assignment that was read from disk. ManualSecrets says that no
	// container is made anew for another version.
	SecretVersions map[string]string
	ManualSecrets  bool
	// PullSecrets say what the Secrets of imagePullSecrets are for.
	PullSecrets []*carav1.PullSecret
	// Values are taken out of all that is said about the project, those of before included. Known are the versions that
	// they have: `NAME/KEY=VERSION`.
	Values *scrub.List
	Known  map[string]bool
	// Limits of restarts.
	Limits RestartLimits
}

// Node is what a node makes of every assignment.
type Node struct {
	Cluster, Name string
	Hardening     Hardening
	Restart       RestartLimits
}

// Labels are on everything that the agent of this node made and on nothing else.
func (n Node) Labels() map[string]string {
	return map[string]string{api.LabelCluster: n.Cluster, api.LabelNode: n.Name}
}

// ProjectLabels are on everything that the agent of this node made for a project.
func (n Node) ProjectLabels(project string) map[string]string {
	return map[string]string{api.LabelCluster: n.Cluster, api.LabelNode: n.Name, api.LabelProject: project}
}

// NewWant reads an assignment.
func NewWant(n Node, a *carav1.Assignment, haveSecrets bool) *Want {
	p := a.GetProject()
	w := &Want{
		Cluster: n.Cluster, Node: n.Name,
		Project: p.GetMetadata().GetName(), UID: p.GetMetadata().GetUid(),
		Epoch: p.GetStatus().GetEpoch(), Generation: p.GetMetadata().GetGeneration(),
		Spec: api.Normalize(p.GetSpec()), Hashes: map[string]string{}, RunHashes: map[string]string{}, Named: map[string]string{},
		RestartToken: p.GetStatus().GetRestartToken(), Restarts: api.Restarts(p),
		Phase: p.GetStatus().GetPhase(), Limits: n.Restart,
		HaveSecrets: haveSecrets, Secrets: a.GetSecrets(), Auth: a.GetRegistryAuth(), PullSecrets: a.GetPullSecrets(),
		SecretVersions: a.GetSecretVersions(), ManualSecrets: api.ManualSecrets(p), Values: valuesOf(a), Known: knownOf(a),
	}
	if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady); c.GetObservedGeneration() == w.Generation {
		w.Said = c.GetMessage()
	}
	w.Remove = w.Phase == api.PhaseTerminating || w.Phase == api.PhaseTerminated
	for _, s := range w.Spec.GetServices() {
		w.Hashes[s.GetName()], w.RunHashes[s.GetName()] = api.ServiceHash(p.GetSpec(), s.GetName()), runHash(p.GetSpec(), s.GetName())
	}
	w.harden(n.Hardening)
	w.pin(p.GetStatus())
	if bad := api.Violations(p, n.Hardening.AllowCaps); len(bad) > 0 && !w.Remove {
		w.Failure = violation(bad)
		return w
	}
	if w.Phase == api.PhaseFailed && p.GetStatus().GetObservedGeneration() == w.Generation {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase)
		w.Failure = &Failure{Reason: api.Reason(cmp.Or(c.GetReason(), api.ReasonFailed)), Message: c.GetMessage()}
	}
	return w
}

// Unwanted is what a project is once it is no longer ours. With an epoch the server waits to hear that nothing is left.
func Unwanted(n Node, project, uid string, epoch int32) *Want {
	return &Want{
		Cluster: n.Cluster, Node: n.Name, Project: project, UID: uid, Epoch: epoch,
		Remove: true, Quiet: true, Limits: n.Restart,
	}
}

// Rollout names what bookkeeping belongs to: a retry or a changed spec begins it anew.
type Rollout struct {
	uid        string
	epoch      int32
	generation int32
	restart    string
	values     string // of Secrets, see valuesVersion
}

// RolloutOf is the rollout of an assignment, which may come from disk.
func RolloutOf(a *carav1.Assignment) Rollout {
	p := a.GetProject()
	return Rollout{
		uid: p.GetMetadata().GetUid(), epoch: p.GetStatus().GetEpoch(),
		generation: p.GetMetadata().GetGeneration(), restart: p.GetStatus().GetRestartToken(),
		values: valuesVersion(a.GetSecretVersions(), api.ManualSecrets(p)),
	}
}

// Rollout is what bookkeeping about w belongs to.
func (w *Want) Rollout() Rollout {
	return Rollout{uid: w.UID, epoch: w.Epoch, generation: w.Generation, restart: w.RestartToken, values: valuesVersion(w.SecretVersions, w.ManualSecrets)}
}

// Service returns a service of the project; nil if it has none of that name.
func (w *Want) Service(name string) *carav1.Service {
	i := slices.IndexFunc(w.Spec.GetServices(), func(s *carav1.Service) bool { return s.GetName() == name })
	if i < 0 {
		return nil
	}
	return w.Spec.GetServices()[i]
}

// ordered says that dependsOn is used: then it alone gives the order, not the list.
func (w *Want) ordered() bool {
	return slices.ContainsFunc(w.Spec.GetServices(), func(s *carav1.Service) bool { return len(s.GetDependsOn()) > 0 })
}

// missingSecret names a secret that the service needs and that is not at hand; empty where there is none.
func (w *Want) missingSecret(s *carav1.Service) string {
	for _, ref := range secretRefs(s) {
		if _, ok := w.Secrets[ref]; !ok {
			return ref
		}
	}
	return ""
}

func secretRefs(s *carav1.Service) []string {
	var refs []string
	for _, use := range api.SecretUses(&carav1.ProjectSpec{Services: []*carav1.Service{s}}) {
		refs = append(refs, use.Name+"/"+use.Key)
	}
	return refs
}

// violation is the end of an assignment that asks for what no project may have. The server refuses such a manifest; one
// that comes all the same is never run, whatever else the server says.
func violation(bad []*carav1.FieldError) *Failure {
	words := make([]string, len(bad))
	for i, e := range bad {
		words[i] = e.GetField() + ": " + e.GetMessage()
	}
	return &Failure{Reason: api.ReasonPolicyViolation, Message: "this node does not run what breaks its policies: " + strings.Join(words, "; ")}
}

// Hardening is what the operator of a node sets for every container that runs there, and what he lets them ask for.
type Hardening struct {
	// PIDsLimit is how many processes and threads a container may have where its manifest gives no limit: 4,096 where 0,
	// no limit where negative. Without one, a container that forks without end takes the whole machine's.
	PIDsLimit int32
	// NoNewPrivileges sets noNewPrivileges for every container, whatever its manifest says.
	NoNewPrivileges bool
	// AllowCaps are the capabilities that manifests may add on this node, beside those that they may add on every node.
	AllowCaps []string
}

// WithDefaults fills in what the operator left out.
func (h Hardening) WithDefaults() Hardening {
	h.PIDsLimit = cmp.Or(h.PIDsLimit, 4096)
	return h
}

// harden fills in what the manifest leaves to the node. It changes w's own copy of the spec after the hashes were taken,
// so that a change of the agent's flags makes no container anew: a limit is changed in place, and the rest holds for
// containers that are made from then on.
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
