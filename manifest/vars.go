package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// newVars returns variables by name, or nil if there are none.
func newVars(vars []*carav1.SourceVar) map[string]*carav1.SourceVar {
	if len(vars) == 0 {
		return nil
	}
	m := make(map[string]*carav1.SourceVar, len(vars))
	for _, v := range vars {
		m[v.GetName()] = v
	}
	return m
}

// expand returns a scalar with its variables replaced, or nil after a problem. Only texts are changed. A value that is
// unquoted, or nothing but a variable, may become a number or a truth value, if the field wants one: between braces, YAML needs quotes
// around a variable.
func (p scalars) expand(n *yaml.Node, field string, fd protoreflect.FieldDescriptor) *yaml.Node {
	p.secretVars = nil
	if p.vars == nil || p.secret || n.Kind != yaml.ScalarNode || n.Tag != tagString || !strings.Contains(n.Value, "$") {
		return n
	}
	out := *n
	uses, bad := syntax.VarUses(n.Value)
	if bad == nil {
		p.secretVars = p.secretsOf(uses)
		if len(p.secretVars) > 0 && !takesSecrets(fd) {
			name := p.secretVars[0].GetName()
			bad = &syntax.VarError{Token: "${" + name, Message: fmt.Sprintf("the variable %s is from a Secret; it can be used in the values of env and the content of files only", name)}
		} else {
			out.Value, bad = p.replaced(n.Value, uses)
		}
	}
	if bad != nil {
		line, column := p.placeOf(n, bad)
		p.problemAt(line, column, field, p.unknownVar(bad))
		p.secretVars = nil
		return nil
	}
	if p.bytes += len(out.Value); p.bytes > p.limits.Bytes {
		p.problem(n, field, "the file has more than %d bytes of values with its variables; split it", p.limits.Bytes)
		p.stopped = true
		return nil
	}
	if (n.Style == 0 || len(uses) == 1 && uses[0].Name != "") && fd != nil && fd.Kind() != protoreflect.StringKind {
		out.Style, out.Tag = 0, "" // let the library decide, as it does for a plain value
		out.Tag = out.ShortTag()
	}
	return &out
}

// replaced returns a text with its variables replaced. If it has variables of Secrets, these stay, and the agent replaces them:
// then a dollar sign is doubled everywhere else.
func (p scalars) replaced(text string, uses []syntax.VarUse) (string, *syntax.VarError) {
	if len(p.secretVars) == 0 {
		return syntax.Expand(text, p.value)
	}
	var out strings.Builder
	for i, u := range uses {
		part := text[u.Offset:]
		if i+1 < len(uses) {
			part = text[u.Offset:uses[i+1].Offset]
		}
		if p.vars[u.Name].GetSecretKeyRef() != nil {
			out.WriteString(part)
			continue
		}
		value, bad := syntax.Expand(part, p.value)
		if bad != nil {
			bad.Offset += u.Offset
			return "", bad
		}
		out.WriteString(strings.ReplaceAll(value, "$", "$$"))
	}
	return out.String(), nil
}

func (p scalars) value(name string) (string, bool) {
	v, ok := p.vars[name]
	return v.GetValue(), ok
}

// secretsOf returns the variables of Secrets among uses, each once.
func (p scalars) secretsOf(uses []syntax.VarUse) []*carav1.SecretVar {
	var all []*carav1.SecretVar
	seen := map[string]bool{}
	for _, u := range uses {
		if ref := p.vars[u.Name].GetSecretKeyRef(); ref != nil && !seen[u.Name] {
			seen[u.Name] = true
			all = append(all, &carav1.SecretVar{Name: u.Name, SecretKeyRef: proto.CloneOf(ref)})
		}
	}
	return all
}

// takesSecrets reports whether a field may have the value of a Secret.
func takesSecrets(fd protoreflect.FieldDescriptor) bool {
	return fd != nil && (fd.FullName() == "cara.v1.EnvVar.value" || fd.FullName() == "cara.v1.File.content")
}

// setSecretVars adds the variables of the value that was just set.
func (p *parser) setSecretVars(m protoreflect.Message) {
	if len(p.secretVars) == 0 {
		return
	}
	switch m := m.Interface().(type) {
	case *carav1.EnvVar:
		m.SecretVars = p.secretVars
	case *carav1.File:
		m.SecretVars = p.secretVars
	}
	p.secretVars = nil
}

// unknownVar adds a similar name to the message about a variable that is not defined.
func (p scalars) unknownVar(bad *syntax.VarError) string {
	name, isName := strings.CutPrefix(bad.Token, "${")
	if _, known := p.vars[name]; !isName || name == "" || known {
		return bad.Message
	}
	if near := nearest(name, slices.Sorted(maps.Keys(p.vars))); near != "" {
		return fmt.Sprintf("%s; did you mean %s?", bad.Message, near)
	}
	return bad.Message + "; add it to spec.vars of the source, or give a default: ${" + name + ":-default}"
}

// placeOf returns the position of a variable in the file. A tree has only the position of the whole value, so placeOf looks for
// the same use of the variable after it.
func (p *parser) placeOf(n *yaml.Node, bad *syntax.VarError) (line, column int) {
	earlier := strings.Count(n.Value[:min(bad.Offset, len(n.Value))], bad.Token)
	at := offsetOf(p.text, n.Line, n.Column)
	for ; ; earlier-- {
		i := bytes.Index(p.text[at:], []byte(bad.Token))
		if i < 0 {
			return n.Line, n.Column
		}
		if at += i; earlier == 0 {
			return place(p.text, at)
		}
		at += len(bad.Token)
	}
}

// offsetOf returns the offset of a position in a text. Columns count characters from 1.
func offsetOf(text []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		i := bytes.IndexByte(text[at:], '\n')
		if i < 0 {
			return len(text)
		}
		at += i + 1
	}
	for ; column > 1 && at < len(text) && text[at] != '\n'; column-- {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return at
}
