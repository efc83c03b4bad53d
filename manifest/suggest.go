package manifest

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/agnivade/levenshtein"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/api/validate"
)

// unknownField returns the message for an unknown key: a policy, a similar name, or the existing names.
func unknownField(d protoreflect.MessageDescriptor, name string) string {
	if policy, why := validate.RefusedField(name); policy != "" {
		return validate.PolicyText(policy, why)
	}
	names := fieldNames(d)
	if near := Similar(name, names); near != "" {
		return fmt.Sprintf("unknown field, did you mean %q?", near)
	}
	return "unknown field; there are " + strings.Join(names, ", ")
}

// Similar returns the name that may be meant by a field that does not exist: what Docker Compose or Kubernetes call so, or
// the most similar name. It returns "" if there is none.
func Similar(name string, names []string) string {
	if other := composeWord(name); slices.Contains(names, other) {
		return other
	}
	return nearest(name, names)
}

func fieldNames(d protoreflect.MessageDescriptor) (names []string) {
	for i := range d.Fields().Len() {
		names = append(names, d.Fields().Get(i).JSONName())
	}
	return names
}

// longestWord limits the words that are compared, because the cost is the product of their lengths.
const longestWord = 64

// nearest returns the most similar word, or "" if none is similar.
func nearest(name string, words []string) string {
	if len(name) > longestWord {
		return ""
	}
	folded := fold(name)
	best, least := "", max(1, len(name)*2/5)+1
	for _, w := range words {
		if fold(w) == folded {
			return w
		}
		if d := levenshtein.ComputeDistance(fold(w), folded); d < least {
			best, least = w, d
		}
	}
	return best
}

// fold makes envVar, env_var, env-var and EnvVar equal.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// composeWord translates field names of Docker Compose and Kubernetes.
func composeWord(name string) string {
	return map[string]string{
		"environment":                   "env",
		"entrypoint":                    "command",
		"restart":                       "restartPolicy",
		"volumes":                       "volumeMounts",
		"mounts":                        "volumeMounts",
		"working_dir":                   "workingDir",
		"readOnlyRootFilesystem":        "readOnly",
		"imagePullPolicy":               "pullPolicy",
		"terminationGracePeriodSeconds": "stopGracePeriod",
		"containers":                    "services",
		"livenessProbe":                 "healthcheck",
		"readinessProbe":                "healthcheck",
		"test":                          "exec",
		"httpGet":                       "http",
		"tcpSocket":                     "tcp",
		"configs":                       "files",
		"path":                          "mountPath",
		"ttl":                           "expireAt",
	}[name]
}
