package api

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ValidateToken returns what is wrong with the patterns and labels that a token is bounded to.
func ValidateToken(t *carav1.Token) []*carav1.FieldError {
	e := &fieldErrors{seen: map[string]bool{}}
	e.patterns("hosts", t.GetHosts(), HostPattern)
	e.patterns("nodeNames", t.GetNodeNames(), NamePattern)
	for _, k := range sortedKeys(t.GetLabels()) {
		v := t.GetLabels()[k]
		switch {
		case len(validation.IsQualifiedName(k)) > 0:
			e.add("labels["+clip(k)+"]", "the key is not a label key: %s", labelKeyForm)
		case len(validation.IsValidLabelValue(strings.ReplaceAll(v, Everything, "x"))) > 0:
			e.add("labels["+clip(k)+"]", "the value %q is not a label value or a pattern of label values: %s, and * for any run of characters", clip(v), labelForm)
		case strings.Count(v, Everything) > maxPatternStars:
			e.add("labels["+clip(k)+"]", "%s", stars(v))
		}
	}
	return e.list
}
