package compose

import (
	"maps"
	"regexp"
	"slices"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

var (
	secretName  = regexp.MustCompile(`(?i)(password|passwd|passphrase|(^|[_.-])(pass|pw)|secret|token|credentials?|(api|access|private|encryption|app|secret)_?key|secret_?key_base)$`)
	secretValue = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@`) // a URL with a password
	plainValue  = regexp.MustCompile(`(?i)^(|yes|no|true|false|on|off|none|null|[0-9])$`)
)

// isSecret reports whether a variable holds something that does not belong into a repository.
func isSecret(name, value string) bool {
	return !plainValue.MatchString(value) && (secretName.MatchString(name) || secretValue.MatchString(value))
}

func (s *service) environment() {
	for _, name := range slices.Sorted(maps.Keys(s.in.Environment)) {
		value := s.in.Environment[name]
		switch {
		case value == nil:
			s.say(Note, "environment", "%s has no value here, so it is left out", name)
		case isSecret(name, *value) && s.tree != nil:
			s.out.Env = append(s.out.Env, &carav1.EnvVar{Name: name, Value: *value})
			if !markers.MatchString(*value) {
				s.say(Warning, "environment", "%s looks like a password, and it is in the repository: put it into a Secret, and name it in spec.vars of the source", name)
			}
		case isSecret(name, *value):
			s.out.Env = append(s.out.Env, &carav1.EnvVar{Name: name, ValueFrom: &carav1.EnvVarSource{
				SecretKeyRef: s.secretKey(name, []byte(*value)),
			}})
		default:
			s.out.Env = append(s.out.Env, &carav1.EnvVar{Name: name, Value: *value})
		}
	}
}

var noKey = regexp.MustCompile(`[^-._a-zA-Z0-9]+`)

// secretKey puts a value into the project's Secret and returns where. Equal values with the same name are there once.
func (s *service) secretKey(name string, value []byte) *carav1.SecretKeyRef {
	if s.secret == nil {
		s.secret = &carav1.Secret{
			ApiVersion: api.APIVersion, Kind: api.KindSecret,
			Metadata:   &carav1.ObjectMeta{Name: dnsLabel(s.to.GetMetadata().GetName() + "-secrets")},
			StringData: map[string]string{}, Data: map[string][]byte{},
		}
	}
	key := noKey.ReplaceAllString(name, "-")
	if old, ok := s.valueOf(key); ok && old != string(value) {
		key = s.out.GetName() + "." + key
	}
	if printable(value) {
		s.secret.StringData[key] = string(value)
	} else {
		s.secret.Data[key] = value
	}
	return &carav1.SecretKeyRef{Name: s.secret.GetMetadata().GetName(), Key: key}
}

func (s *service) valueOf(key string) (string, bool) {
	if v, ok := s.secret.GetStringData()[key]; ok {
		return v, true
	}
	v, ok := s.secret.GetData()[key]
	return string(v), ok
}
