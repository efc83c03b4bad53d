package syntax

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// IsVariable reports whether a variable can have this name.
func IsVariable(name string) bool { return variable.MatchString(name) }

// VarError is why a text with variables cannot be used.
type VarError struct {
	// Offset of the variable in the text, in bytes, and the text that begins there, such as `${NAME`.
	Offset  int
	Token   string
	Message string
}

// VarUse is one variable in a text, or the literal text before it.
type VarUse struct {
	Literal string // with `$$` as it is
	Name    string // empty for a literal
	Default string
	// HasDefault is true for `${NAME:-default}`.
	HasDefault bool
	Offset     int
}

// VarUses splits a text at `${NAME}` and `${NAME:-default}`. A `$` that is not followed by `{` is literal.
func VarUses(s string) ([]VarUse, *VarError) {
	var all []VarUse
	start := 0
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], "$$"):
			i += 2
		case strings.HasPrefix(s[i:], "${"):
			use, length, err := varUse(s[i:], i)
			if err != nil {
				return nil, err
			}
			if i > start {
				all = append(all, VarUse{Literal: s[start:i], Offset: start})
			}
			all = append(all, use)
			i += length
			start = i
		default:
			i++
		}
	}
	if start < len(s) {
		all = append(all, VarUse{Literal: s[start:], Offset: start})
	}
	return all, nil
}

// varUse parses the variable at the start of a text.
func varUse(s string, offset int) (use VarUse, length int, err *VarError) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return use, 0, &VarError{offset, "${", "begins with ${ and does not end with }; write ${NAME}, or $$ for a dollar sign"}
	}
	name, value, has := strings.Cut(s[2:end], ":-")
	if !variable.MatchString(name) {
		return use, 0, &VarError{offset, "${", fmt.Sprintf("%q is not a variable; write ${NAME} or ${NAME:-default}, or $$ for a dollar sign", text.Short(s[:end+1]))}
	}
	if strings.Contains(value, "${") {
		return use, 0, &VarError{offset, "${" + name, fmt.Sprintf("the default of the variable %s contains a variable; a default is plain text", name)}
	}
	return VarUse{Name: name, Default: value, HasDefault: has, Offset: offset}, end + 1, nil
}

// Expand replaces the variables in a text, and `$$` by `$`. lookup returns the value of a variable. A default is used if the
// variable is not defined or empty.
func Expand(s string, lookup func(name string) (string, bool)) (string, *VarError) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	uses, err := VarUses(s)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, u := range uses {
		if u.Name == "" {
			out.WriteString(strings.ReplaceAll(u.Literal, "$$", "$"))
			continue
		}
		value, ok := lookup(u.Name)
		switch {
		case u.HasDefault && value == "":
			value = u.Default
		case !ok:
			return "", &VarError{u.Offset, "${" + u.Name, fmt.Sprintf("the variable %s is not defined", u.Name)}
		}
		out.WriteString(value)
	}
	return out.String(), nil
}

// ExpandSecrets replaces the variables of Secrets in a text. secrets are the values by NAME/KEY.
func ExpandSecrets(s string, vars []*carav1.SecretVar, secrets map[string][]byte) string {
	if len(vars) == 0 {
		return s
	}
	out, err := Expand(s, func(name string) (string, bool) {
		i := slices.IndexFunc(vars, func(v *carav1.SecretVar) bool { return v.GetName() == name })
		if i < 0 {
			return "", false
		}
		ref := vars[i].GetSecretKeyRef()
		return string(secrets[ref.GetName()+"/"+ref.GetKey()]), true
	})
	if err != nil {
		return s // the server rejects such a text
	}
	return out
}
