package api

import (
	"slices"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// SecretUse is one field in a project's spec that refers to a Secret.
type SecretUse struct {
	// Name of the Secret, and Key of the value in it. Key is empty if the whole Secret is used.
	Name, Key string
	// Field is the path of the field: `spec.services[0].env[1].valueFrom.secretKeyRef`.
	Field string
}

// SecretUses returns every field with which a project uses a Secret. It is the only list of such fields. The permission to
// use a Secret, the values that a node gets, and the redaction of texts all use it.
func SecretUses(spec *carav1.ProjectSpec) []SecretUse {
	var uses []SecretUse
	for i, service := range spec.GetServices() {
		at := Element("spec.services", i)
		for j, env := range service.GetEnv() {
			if ref := env.GetValueFrom().GetSecretKeyRef(); ref != nil {
				uses = append(uses, SecretUse{ref.GetName(), ref.GetKey(), Element(at+".env", j) + ".valueFrom.secretKeyRef"})
			}
			uses = append(uses, varUses(Element(at+".env", j), env.GetSecretVars())...)
		}
		for j, file := range service.GetFiles() {
			if ref := file.GetSecretKeyRef(); ref != nil {
				uses = append(uses, SecretUse{ref.GetName(), ref.GetKey(), Element(at+".files", j) + ".secretKeyRef"})
			}
			uses = append(uses, varUses(Element(at+".files", j), file.GetSecretVars())...)
		}
	}
	for i, name := range spec.GetImagePullSecrets() {
		uses = append(uses, SecretUse{Name: name, Field: Element("spec.imagePullSecrets", i)})
	}
	if name := spec.GetBackup().GetSecretRef(); name != "" {
		uses = append(uses, SecretUse{Name: name, Field: "spec.backup.secretRef"})
	}
	for i, in := range spec.GetIngress() {
		at := Element("spec.ingress", i)
		if name := in.GetTls().GetSecretRef(); name != "" {
			uses = append(uses, SecretUse{Name: name, Field: at + ".tls.secretRef"})
		}
		if name := in.GetAccess().GetBasicAuth().GetSecretRef(); name != "" {
			uses = append(uses, SecretUse{Name: name, Field: at + ".access.basicAuth.secretRef"})
		}
	}
	return uses
}

func varUses(at string, vars []*carav1.SecretVar) (uses []SecretUse) {
	for i, v := range vars {
		ref := v.GetSecretKeyRef()
		uses = append(uses, SecretUse{ref.GetName(), ref.GetKey(), Element(at+".secretVars", i) + ".secretKeyRef"})
	}
	return uses
}

// SecretNames returns the sorted, unique names of the Secrets that a project uses.
func SecretNames(spec *carav1.ProjectSpec) []string {
	var names []string
	for _, use := range SecretUses(spec) {
		names = append(names, use.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// SourceSecretNames returns the sorted names of the Secrets that a source itself uses, for git, webhooks and decryption. No
// project may use them.
func SourceSecretNames(spec *carav1.SourceSpec) []string {
	var names []string
	for _, name := range []string{spec.GetGit().GetSecretRef(), spec.GetWebhook().GetSecretRef(), spec.GetDecryption().GetSecretRef()} {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// AnnotationSecretRollout is the annotation that defines what happens to services when a Secret that they use changes.
const AnnotationSecretRollout = "cara.dev/secret-rollout"

// Values of AnnotationSecretRollout.
const (
	// SecretRolloutAutomatic recreates the services that use the Secret, and is the default.
	SecretRolloutAutomatic = "Automatic"
	// SecretRolloutManual only sets the condition SecretChanged.
	SecretRolloutManual = "Manual"
)

// ManualSecrets reports whether a project's services keep an old value of a Secret until they are restarted.
func ManualSecrets(p *carav1.Project) bool {
	return p.GetMetadata().GetAnnotations()[AnnotationSecretRollout] == SecretRolloutManual
}

// ExtraCapabilities returns, in order, the capabilities that a project adds and that are not allowed on every node.
func ExtraCapabilities(spec *carav1.ProjectSpec) []string {
	var out []string
	for _, s := range spec.GetServices() {
		for _, c := range s.GetCapAdd() {
			if name := syntax.CanonCapability(c); !slices.Contains(syntax.AllowedCapabilities(), name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
