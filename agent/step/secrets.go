package step

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/scrub"
)

// How the agent handles Secrets. Invariants:
//
//   - Values are in memory and in containers, never on disk. A restarted agent keeps containers running without them, and
//     receives them again from the server.
//   - A container has a label with the version of each value that it was created with. If a version has changed, the
//     container is outdated, and Step replaces it like after a change of the manifest. A value that is not available makes
//     no container outdated.
//   - A value that no process can receive is never sent to the engine, because the engine would quote it in an error.

// labelSecrets holds the versions of the Secret values that a container was created with: `NAME/KEY=VERSION`, separated by
// commas.
const labelSecrets = "cara.secrets"

// SecretValues are the values of the Secrets that a project uses.
type SecretValues struct {
	// Secrets are by NAME/KEY, Auth by registry host. HaveSecrets is false for an assignment from disk, because Secrets are
	// never stored there.
	HaveSecrets bool
	Secrets     map[string][]byte
	Auth        map[string]*carav1.RegistryAuth
	// SecretVersions are the versions of the values in Secrets, even for an assignment from disk. ManualSecrets means that a
	// new version causes no new container.
	SecretVersions map[string]string
	ManualSecrets  bool
	// PullSecrets describe the Secrets of imagePullSecrets.
	PullSecrets []*carav1.PullSecret
	// Values are removed from all messages about the project, including old values. Known are their versions:
	// `NAME/KEY=VERSION`.
	Values *scrub.List
	Known  map[string]bool
}

// secretsOf returns the values that came with an assignment. have is false for an assignment from disk.
func secretsOf(a *carav1.Assignment, have bool) SecretValues {
	return SecretValues{
		HaveSecrets: have, Secrets: a.GetSecrets(), Auth: a.GetRegistryAuth(), PullSecrets: a.GetPullSecrets(),
		SecretVersions: a.GetSecretVersions(), ManualSecrets: api.ManualSecrets(a.GetProject()), Values: valuesOf(a), Known: knownOf(a),
	}
}

// missingSecret returns a secret that the service needs and that is not available, or an empty string.
func (w *SecretValues) missingSecret(s *carav1.Service) string {
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

// secretsLabel returns labelSecrets for a new container, or an empty string for a service without Secrets.
func (w *SecretValues) secretsLabel(s *carav1.Service) string {
	var all []string
	for _, ref := range secretRefs(s) {
		if v := w.SecretVersions[ref]; v != "" {
			all = append(all, ref+"="+v)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ",")
}

// changedSecrets returns the Secrets of which a container of the service has an old value.
func (w *SecretValues) changedSecrets(s *carav1.Service, c *engine.Container) []string {
	var names []string
	for made := range strings.SplitSeq(c.Labels[labelSecrets], ",") {
		ref, version, _ := strings.Cut(made, "=")
		now := w.SecretVersions[ref]
		if now != "" && now != version && slices.Contains(secretRefs(s), ref) {
			name, _, _ := strings.Cut(ref, "/")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// newValues returns which Secrets require a new container, as text, or an empty string.
func (s *view) newValues(svc *carav1.Service, c *engine.Container) string {
	if s.w.ManualSecrets {
		return ""
	}
	return secretsChanged(s.w.changedSecrets(svc, c))
}

func secretsChanged(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "the Secret " + names[0] + " changed"
	}
	return "the Secrets " + strings.Join(names, ", ") + " changed"
}

// oldValues returns the services that run with old values, and the Secrets of these values.
func (s *progress) oldValues() (services, secrets []string) {
	for _, svc := range s.w.Spec.GetServices() {
		c := s.serving(svc)
		if c == nil {
			continue
		}
		if names := s.w.changedSecrets(svc, c); len(names) > 0 {
			services, secrets = append(services, svc.GetName()), append(secrets, names...)
		}
	}
	slices.Sort(secrets)
	return services, slices.Compact(secrets)
}

// NewSecrets returns which services are replaced because Secrets have new values, as a message, or an empty string. version
// changes with each value.
func NewSecrets(w *Want, h *Have) (version, message string) {
	if w.Remove || w.ManualSecrets || w.Failure != nil || h.Memory.Failure != nil || !w.HaveSecrets {
		return "", ""
	}
	services, secrets := (&progress{view{w: w, h: h}}).oldValues()
	if len(services) == 0 {
		return "", ""
	}
	return valuesVersion(w.SecretVersions, false), fmt.Sprintf("%s: recreating services %s", secretsChanged(secrets), strings.Join(services, ", "))
}

// secretChanged returns the condition of a project whose containers keep old values until someone acts, or nil.
func (s *report) secretChanged(failed bool) *carav1.Condition {
	services, secrets := s.oldValues()
	if len(services) == 0 || !s.w.ManualSecrets && !failed {
		return nil
	}
	what := fmt.Sprintf("%s; services with the old value: %s. ", secretsChanged(secrets), strings.Join(services, ", "))
	if failed {
		what += "To try again with the new one: caractrl retry project/" + s.w.Project
	} else {
		what += "To give them the new one: caractrl restart project/" + s.w.Project
	}
	return api.NewCondition(api.CondSecretChanged, api.StatusTrue, api.ReasonSecretChanged, what)
}

// valuesVersion changes whenever a Secret's value changes that requires new containers.
func valuesVersion(versions map[string]string, manual bool) string {
	var all strings.Builder
	if !manual {
		for _, ref := range slices.Sorted(maps.Keys(versions)) {
			all.WriteString(ref + "=" + versions[ref] + ",")
		}
	}
	return all.String()
}

// missingValue returns what is wrong with the Secrets that a service needs, or an empty string. It contains no part of a
// value.
func (w *SecretValues) missingValue(s *carav1.Service) string {
	if ref := w.missingSecret(s); ref != "" {
		if w.HaveSecrets {
			return fmt.Sprintf("secret %s does not exist: create it, or take it out of the manifest", ref)
		}
		return fmt.Sprintf("secret %s comes with the connection to the server", ref)
	}
	size := 0
	for _, e := range s.GetEnv() {
		if vars := e.GetSecretVars(); len(vars) > 0 {
			value := []byte(syntax.ExpandSecrets(e.GetValue(), vars, w.Secrets))
			if bad := validate.EnvProblem(e.GetName(), value); bad != "" {
				return fmt.Sprintf("the value of the variable %s, with %s of Secret %s, %s", e.GetName(), vars[0].GetSecretKeyRef().GetKey(), vars[0].GetSecretKeyRef().GetName(), bad)
			}
			size += len(value)
			continue
		}
		r := e.GetValueFrom().GetSecretKeyRef()
		if r == nil {
			continue
		}
		value := w.Secrets[r.GetName()+"/"+r.GetKey()]
		if bad := validate.EnvProblem(e.GetName(), value); bad != "" {
			return fmt.Sprintf("the value of key %s in Secret %s, for the variable %s, %s", r.GetKey(), r.GetName(), e.GetName(), bad)
		}
		size += len(value)
	}
	return validate.WordsProblem(s, size)
}

// missingPullSecret returns which Secret of imagePullSecrets an image waits for: a missing one may be the one it needs. It
// returns an empty string if the image's registry has credentials, or if all Secrets exist.
func (w *Want) missingPullSecret(ref string) string {
	if w.AuthFor(ref) != nil {
		return ""
	}
	if !w.HaveSecrets && len(w.Spec.GetImagePullSecrets()) > 0 {
		return "its credentials come with the connection to the server"
	}
	for _, p := range w.PullSecrets {
		if p.GetMissing() {
			return fmt.Sprintf("the Secret %s of imagePullSecrets does not exist: create it, or take it out of the manifest", p.GetName())
		}
	}
	return ""
}

// unusedPullSecrets returns which Secrets of imagePullSecrets are used for no image, and why.
func (w *Want) unusedPullSecrets() string {
	var said []string
	for _, p := range w.PullSecrets {
		switch {
		case p.GetMissing():
		case p.GetProblem() != "":
			said = append(said, fmt.Sprintf("the Secret %s of imagePullSecrets is not used: it %s", p.GetName(), p.GetProblem()))
		case !slices.ContainsFunc(w.Spec.GetServices(), func(s *carav1.Service) bool {
			return slices.Contains(syntax.RegistriesOf(s.GetImage()), p.GetRegistry())
		}):
			said = append(said, fmt.Sprintf("the Secret %s of imagePullSecrets is not used: no image comes from the registry in its key server", p.GetName()))
		}
	}
	return strings.Join(said, "; ")
}

// AuthFor returns the credentials for an image's registry, or nil.
func (w *SecretValues) AuthFor(ref string) *carav1.RegistryAuth {
	for _, registry := range syntax.RegistriesOf(ref) {
		if auth := w.Auth[registry]; auth != nil {
			return auth
		}
	}
	return nil
}

// valuesOf returns the values to remove from all messages about a project: those of its Secrets and its pull credentials.
func valuesOf(a *carav1.Assignment) *scrub.List {
	var values [][]byte
	for _, v := range a.GetSecrets() {
		values = append(values, v)
	}
	for _, auth := range a.GetRegistryAuth() {
		values = append(values, []byte(auth.GetUsername()), []byte(auth.GetPassword()))
	}
	public := []string{a.GetProject().GetMetadata().GetName()}
	for _, v := range a.GetProject().GetSpec().GetVolumes() {
		public = append(public, v.GetName())
	}
	for _, s := range a.GetProject().GetSpec().GetServices() {
		public = append(public, s.GetName())
		public = append(public, strings.FieldsFunc(s.GetImage(), func(r rune) bool { return strings.ContainsRune("/:@", r) })...)
	}
	return scrub.New(values, public)
}

// NotShown ends a message in place of a container's output.
const NotShown = "is not shown: it may have values of Secrets that this agent does not know, as it was started after the container"

// knownOf returns the versions of the available values.
func knownOf(a *carav1.Assignment) map[string]bool {
	known := map[string]bool{}
	for ref, version := range a.GetSecretVersions() {
		if _, have := a.GetSecrets()[ref]; have {
			known[ref+"="+version] = true
		}
	}
	return known
}

// maxKnown limits how many old values are remembered.
const maxKnown = 1000

// Remember keeps the old values in addition to the current ones, because containers may still have them.
func (w *Want) Remember(before *Want) {
	if before == nil || before.UID != w.UID || len(before.Known) > maxKnown {
		return
	}
	maps.Copy(w.Known, before.Known)
	w.Values = w.Values.After(before.Values)
}

// Knows reports whether every value that a container was created with is removed from its output.
func (w *SecretValues) Knows(s *carav1.Service, c *engine.Container) bool {
	made := c.Labels[labelSecrets]
	if made == "" { // it has none, or was created by an older agent or server
		return w.HaveSecrets || len(secretRefs(s)) == 0
	}
	for one := range strings.SplitSeq(made, ",") {
		if !w.Known[one] {
			return false
		}
	}
	return true
}
