package api

import (
	"strings"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// FeatureSecretVars means that an agent replaces `secretVars`. An older agent would use the text as it is.
const FeatureSecretVars = "secretVars"

// secretVars validates the variables of Secrets in a text.
func (e serviceErrors) secretVars(at, textField, s string, vars []*carav1.SecretVar) {
	if len(vars) == 0 {
		return
	}
	seen := map[string]int{}
	for i, v := range vars {
		field := Element(at, i)
		if !syntax.IsVariable(v.GetName()) {
			e.add(field+".name", "%q is not the name of a variable; use letters, digits and _", text.Short(v.GetName()))
		}
		e.unique(seen, v.GetName(), "variable", at, i, ".name")
		e.secretKey(field+".secretKeyRef", v.GetSecretKeyRef())
	}
	_, err := syntax.Expand(s, func(name string) (string, bool) { _, ok := seen[name]; return "", ok })
	if err != nil {
		e.add(textField, "%s; secretVars defines %s, and $$ is a dollar sign", err.Message, strings.Join(sortedKeys(seen), ", "))
	}
}

// vars validates the variables of a source.
func (e sourceErrors) vars(s *carav1.SourceSpec) {
	seen := map[string]int{}
	for i, v := range s.GetVars() {
		field := Element("spec.vars", i)
		if v.GetName() != "" && !syntax.IsVariable(v.GetName()) {
			e.add(field+".name", "%q is not the name of a variable; use letters, digits and _", text.Short(v.GetName()))
		}
		e.unique(seen, v.GetName(), "variable", "spec.vars", i, ".name")
		ref := v.GetSecretKeyRef()
		if ref == nil {
			continue
		}
		if v.GetValue() != "" {
			e.add(field, "has both value and secretKeyRef; keep one of them")
		}
		e.dnsLabel(field+".secretKeyRef.name", ref.GetName())
		e.secretKeyName(field+".secretKeyRef.key", ref.GetKey())
		if ref.GetName() != "" && !syntax.MatchAny(s.GetAllow().GetSecrets(), ref.GetName()) {
			e.add(field+".secretKeyRef.name", "projects of the source may not use Secret %q; add it to spec.allow.secrets", text.Short(ref.GetName()))
		}
	}
}
