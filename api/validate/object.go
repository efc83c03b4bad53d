package validate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Object returns all errors in an object, at most one for each field: first the constraints of the proto files, then the
// rules that involve several fields. Field paths are those of the JSON: `spec.services[0].name`. It ignores the status.
func Object(m proto.Message) []*carav1.FieldError {
	e := &fieldErrors{seen: map[string]bool{}}
	_, e.unquoted = m.(*carav1.Secret)
	size := 0
	e.bounds("", m.ProtoReflect(), &size)
	if len(e.list) > 0 {
		return e.list
	}
	e.constraints(m, size > maxPatience)
	switch m := m.(type) {
	case *carav1.Project:
		e.metadata(m.GetMetadata())
		e.secretRollout(m.GetMetadata())
		projectErrors{e}.project(m.GetSpec())
	case *carav1.Source:
		e.metadata(m.GetMetadata())
		sourceErrors{e}.source(m.GetSpec())
	case *carav1.Secret:
		e.metadata(m.GetMetadata())
		secretErrors{e}.secret(m)
	case *carav1.Node:
		e.metadata(m.GetMetadata())
	}
	return e.list
}

// fieldErrors collects errors. Only the first error of a field counts: a missing field is not also misspelled.
type fieldErrors struct {
	list []*carav1.FieldError
	seen map[string]bool
	// unquoted means that the object is a Secret. Messages quote nothing of it, because a value may be in the wrong field.
	unquoted bool
}

// Each of these types has the rules for one part of the manifests.
type (
	projectErrors struct{ *fieldErrors }
	serviceErrors struct{ *fieldErrors }
	sourceErrors  struct{ *fieldErrors }
	secretErrors  struct{ *fieldErrors }
)

// quote returns a quoted text and a space, or "" in a Secret.
func (e *fieldErrors) quote(s string) string {
	if e.unquoted {
		return ""
	}
	return fmt.Sprintf("%q ", text.Short(s))
}

// at returns the path of the value of a map key. In a Secret it leaves out a text that cannot be a key.
func (e *fieldErrors) at(field, key string) string {
	if e.unquoted && !api.IsSecretKey(key) {
		return field
	}
	return field + "[" + key + "]"
}

func (e *fieldErrors) add(field, format string, args ...any) {
	if e.seen[field] || len(e.list) >= api.MaxFieldErrors {
		return
	}
	e.seen[field] = true
	e.list = append(e.list, &carav1.FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
}

// validator is created at the first use: compiling the constraints takes longer than validating a thousand objects.
var validator = sync.OnceValues(func() (protovalidate.Validator, error) { //nolint:gochecknoglobals // derived from the contract alone
	return protovalidate.New()
})

// maxPatience is the number of list elements up to which all violations are collected. Beyond it, only the first is
// returned, because each costs memory.
const maxPatience = 5000

func (e *fieldErrors) constraints(m proto.Message, first bool) {
	v, err := validator()
	if err != nil {
		e.add("", "the constraints of the contract do not compile: %v; this build of Cara is broken", err)
		return
	}
	var options []protovalidate.ValidationOption
	if first {
		options = append(options, protovalidate.WithFailFast())
	}
	err = v.Validate(m, options...)
	var bad *protovalidate.ValidationError
	switch {
	case err == nil:
	case errors.As(err, &bad):
		for _, v := range bad.Violations {
			e.add(jsonPath(m.ProtoReflect().Descriptor(), v.Proto.GetField()), "%s", e.constraintText(v))
		}
	default:
		e.add("", "the constraints of the contract cannot be checked: %v; this build of Cara is broken", err)
	}
}

// jsonPath returns a violation's path with JSON names.
func jsonPath(d protoreflect.MessageDescriptor, path *validate.FieldPath) string {
	var b strings.Builder
	for _, el := range path.GetElements() {
		name := el.GetFieldName()
		if d != nil {
			if fd := d.Fields().ByName(protoreflect.Name(name)); fd != nil {
				name, d = fd.JSONName(), childOf(fd)
			}
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(name)
		switch el.WhichSubscript() {
		case validate.FieldPathElement_Index_case:
			b.WriteString("[" + strconv.FormatUint(el.GetIndex(), 10) + "]")
		case validate.FieldPathElement_StringKey_case:
			b.WriteString("[" + el.GetStringKey() + "]")
		default: // neither a list nor a map, or a map with a key type that our messages do not use
		}
	}
	return b.String()
}

func childOf(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		return fd.MapValue().Message()
	}
	return fd.Message()
}

// constraintText describes a constraint of the proto files in our own words.
func (e *fieldErrors) constraintText(v *protovalidate.Violation) string {
	rule := v.Proto.GetRuleId()
	switch rule {
	case "required":
		return "is required; set it"
	case "string.max_len":
		return fmt.Sprintf("has %d characters, at most %d are allowed; shorten it", len([]rune(v.FieldValue.String())), v.RuleValue.Uint())
	case "string.in":
		value, words := v.FieldValue.String(), choices(v.RuleValue.List())
		return e.is(value) + "must be " + oneOf(words) + e.meant(value, words)
	case "string.const":
		return e.is(v.FieldValue.String()) + fmt.Sprintf("must be %q", v.RuleValue.String())
	case "repeated.min_items":
		return fmt.Sprintf("has no entry, at least %d is needed; add one", v.RuleValue.Uint())
	case "repeated.max_items":
		return fmt.Sprintf("has %d entries, at most %d are allowed; take some away", v.FieldValue.List().Len(), v.RuleValue.Uint())
	case "map.max_pairs":
		return fmt.Sprintf("has %d entries, at most %d are allowed; take some away", v.FieldValue.Map().Len(), v.RuleValue.Uint())
	case "int32.in": // 0 stands for a field that is not set
		words := slices.DeleteFunc(choices(v.RuleValue.List()), func(word string) bool { return word == "0" })
		return fmt.Sprintf("is %d; it must be %s", v.FieldValue.Int(), oneOf(words))
	case "int32.gte_lte", "int32.gte", "int32.lte":
		plain := strings.NewReplacer("greater than or equal to", "at least", "less than or equal to", "at most")
		return fmt.Sprintf("is %d; it %s", v.FieldValue.Int(), plain.Replace(v.Proto.GetMessage()))
	}
	return v.Proto.GetMessage()
}

// is begins a message with the field's value.
func (e *fieldErrors) is(s string) string {
	if e.unquoted {
		return ""
	}
	return fmt.Sprintf("is %q; it ", text.Short(s))
}

// meant suggests the choice that differs from a value only in upper and lower case.
func (e *fieldErrors) meant(value string, choices []string) string {
	for _, c := range choices {
		if !e.unquoted && strings.EqualFold(c, value) {
			return fmt.Sprintf("; did you mean %q?", c)
		}
	}
	return ""
}

func choices(l protoreflect.List) []string {
	var out []string
	for i := range l.Len() {
		if s := l.Get(i).String(); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// oneOf joins words: `A, B or C`.
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// dnsLabel validates a name that becomes a host name or a part of one.
func (e *fieldErrors) dnsLabel(field, name string) {
	if name == "" || len(validation.IsDNS1123Label(name)) == 0 {
		return
	}
	if len(name) > validation.DNS1123LabelMaxLength {
		e.add(field, "has %d characters, at most %d are allowed in a DNS label; shorten it", len(name), validation.DNS1123LabelMaxLength)
		return
	}
	e.add(field, "%smust be a DNS label: lower-case letters, digits and -, beginning and ending with a letter or a digit", e.is(name))
}

func (e *fieldErrors) metadata(m *carav1.ObjectMeta) {
	e.dnsLabel("metadata.name", m.GetName())
	if m.GetName() == api.ReservedName {
		e.add("metadata.name", "is %q, which the API keeps for itself (/api/v1/projects/watch); choose another name", api.ReservedName)
	}
	e.labels("metadata.labels", m.GetLabels())
	e.annotations("metadata.annotations", m.GetAnnotations())
}

const (
	labelForm    = "write up to 63 letters, digits, -, _ and ., beginning and ending with a letter or a digit"
	labelKeyForm = labelForm + "; a DNS name and / may stand before it"
)

func (e *fieldErrors) labels(field string, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		at := e.at(field, k)
		if len(validation.IsQualifiedName(k)) > 0 {
			e.add(at, "the key %sis no label key: %s", e.quote(k), labelKeyForm)
		}
		if len(validation.IsValidLabelValue(labels[k])) > 0 {
			e.add(at, "the value %sis no label value: %s", e.quote(labels[k]), labelForm)
		}
	}
}

// maxAnnotations limits all keys and values together.
const maxAnnotations = 64 << 10

func (e *fieldErrors) annotations(field string, all map[string]string) {
	total := 0
	for _, k := range sortedKeys(all) {
		total += len(k) + len(all[k])
		if len(validation.IsQualifiedName(strings.ToLower(k))) > 0 {
			e.add(e.at(field, k), "the key %sis no annotation key: %s", e.quote(k), labelKeyForm)
		}
	}
	if total > maxAnnotations {
		e.add(field, "hold %d bytes in all, at most %d are allowed; keep large values elsewhere", total, maxAnnotations)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// MaxItems returns the contract's limit for a list, or 0. It can be checked before the elements are read.
func MaxItems(fd protoreflect.FieldDescriptor) int {
	rules, ok := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	if !ok {
		return 0
	}
	return int(rules.GetRepeated().GetMaxItems())
}

// bounds finds lists that are too long and counts the elements of all other lists, except in the status. An object that is
// too large gets no further checks, because they would be expensive.
func (e *fieldErrors) bounds(path string, m protoreflect.Message, size *int) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.IsMap() || !fd.IsList() && fd.Message() == nil || path == "" && fd.Name() == "status" {
			return true
		}
		at := strings.TrimPrefix(path+"."+fd.JSONName(), ".")
		switch {
		case fd.IsList():
			n := v.List().Len()
			if most := MaxItems(fd); most > 0 && n > most {
				e.add(at, "has %d entries, at most %d are allowed; take some away", n, most)
				return true
			}
			*size += n
			for i := 0; i < n && fd.Message() != nil; i++ {
				e.bounds(api.Element(at, i), v.List().Get(i).Message(), size)
			}
		default:
			e.bounds(at, v.Message(), size)
		}
		return true
	})
}

func (e *fieldErrors) secretRollout(m *carav1.ObjectMeta) {
	switch value := m.GetAnnotations()[api.AnnotationSecretRollout]; value {
	case "", api.SecretRolloutAutomatic, api.SecretRolloutManual:
	default:
		e.add("metadata.annotations["+api.AnnotationSecretRollout+"]", "is %q; it must be %s or %s", text.Short(value), api.SecretRolloutManual, api.SecretRolloutAutomatic)
	}
}

// Token validates the patterns and labels that limit a token.
func Token(t *carav1.Token) []*carav1.FieldError {
	e := &fieldErrors{seen: map[string]bool{}}
	e.patterns("hosts", t.GetHosts(), syntax.HostPattern)
	e.patterns("nodeNames", t.GetNodeNames(), syntax.NamePattern)
	for _, k := range sortedKeys(t.GetLabels()) {
		v := t.GetLabels()[k]
		switch {
		case len(validation.IsQualifiedName(k)) > 0:
			e.add("labels["+text.Short(k)+"]", "the key is not a label key: %s", labelKeyForm)
		case len(validation.IsValidLabelValue(strings.ReplaceAll(v, syntax.Everything, "x"))) > 0:
			e.add("labels["+text.Short(k)+"]", "the value %q is not a label value or a pattern of label values: %s, and * for any run of characters", text.Short(v), labelForm)
		case syntax.Stars(v) != "":
			e.add("labels["+text.Short(k)+"]", "%s", syntax.Stars(v))
		}
	}
	return e.list
}
