package api

import carav1 "github.com/caravanserai/cara/gen/cara/v1"

// AnnotationSecretRollout is a project's annotation that says what a changed Secret does to the services that use it.
const AnnotationSecretRollout = "cara.dev/secret-rollout"

// Values of AnnotationSecretRollout.
const (
	// SecretRolloutAutomatic recreates the services that use the Secret, and is the default.
	SecretRolloutAutomatic = "Automatic"
	// SecretRolloutManual only sets the condition SecretChanged.
	SecretRolloutManual = "Manual"
)

// ManualSecrets reports whether the services of a project keep running with a Secret's old value until somebody restarts them.
func ManualSecrets(p *carav1.Project) bool {
	return p.GetMetadata().GetAnnotations()[AnnotationSecretRollout] == SecretRolloutManual
}

func (e *fieldErrors) secretRollout(m *carav1.ObjectMeta) {
	switch value := m.GetAnnotations()[AnnotationSecretRollout]; value {
	case "", SecretRolloutAutomatic, SecretRolloutManual:
	default:
		e.add("metadata.annotations["+AnnotationSecretRollout+"]", "is %q; it must be %s or %s", clip(value), SecretRolloutManual, SecretRolloutAutomatic)
	}
}
