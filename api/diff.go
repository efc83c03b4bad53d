package api

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Redacted replaces every value of a Secret.
const Redacted = "<redacted>"

// Diff returns the fields that differ between two versions of a project, in field order: labels, annotations and the spec
// with defaults. It ignores the status and what the server adds, so it is empty if and only if the ClaimHash is equal.
// Either project may be nil.
func Diff(before, after *carav1.Project) []*carav1.FieldDiff {
	return DiffMessages(declared(before), declared(after))
}

func declared(p *carav1.Project) *carav1.Project {
	out := &carav1.Project{Metadata: &carav1.ObjectMeta{}, Spec: &carav1.ProjectSpec{}}
	if m := p.GetMetadata(); m != nil {
		out.Metadata.Labels, out.Metadata.Annotations = m.GetLabels(), m.GetAnnotations()
	}
	if p.GetSpec() != nil {
		out.Spec = Normalize(p.GetSpec())
	}
	return out
}

// DiffMessages returns the fields that differ between two messages of one type. List elements are addressed by their name
// if each has a unique one (`spec.services[web].image`), else by their index. If only the order of a list changed, it has
// one entry with the names in order. Values of a Secret are redacted.
func DiffMessages(before, after proto.Message) []*carav1.FieldDiff {
	d := differ{}
	d.message("", before.ProtoReflect(), after.ProtoReflect())
	return d.out
}

type differ struct {
	out []*carav1.FieldDiff
}

func (d *differ) add(path, before, after string) {
	if before != after {
		d.out = append(d.out, &carav1.FieldDiff{Path: path, Old: before, New: after})
	}
}

func (d *differ) message(path string, a, b protoreflect.Message) {
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		at := strings.TrimPrefix(path+"."+fd.JSONName(), ".")
		hasA, hasB := a.Has(fd), b.Has(fd)
		switch {
		case !hasA && !hasB:
		case fd.IsMap():
			d.mapping(at, fd, a.Get(fd).Map(), b.Get(fd).Map())
		case fd.IsList():
			d.list(at, fd, a.Get(fd).List(), b.Get(fd).List())
		case hasA && hasB && isTree(fd):
			d.message(at, a.Get(fd).Message(), b.Get(fd).Message())
		case hasA && hasB && a.Get(fd).Equal(b.Get(fd)):
		default:
			d.add(at, field(a, fd), field(b, fd))
		}
	}
}

// isTree reports whether a message is compared field by field. A well-known type such as Timestamp is one value.
func isTree(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !strings.HasPrefix(string(fd.Message().FullName()), "google.protobuf.")
}

func (d *differ) mapping(path string, fd protoreflect.FieldDescriptor, a, b protoreflect.Map) {
	var keys []string
	for _, m := range []protoreflect.Map{a, b} {
		m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			keys = append(keys, k.String())
			return true
		})
	}
	slices.Sort(keys)
	secret := isSecret(fd)
	for _, k := range slices.Compact(keys) {
		key := protoreflect.ValueOfString(k).MapKey()
		va, vb := a.Get(key), b.Get(key)
		if va.IsValid() && vb.IsValid() && va.Equal(vb) {
			continue
		}
		was, is := valueText(fd.MapValue(), va), valueText(fd.MapValue(), vb)
		if secret {
			// Not through add: two redacted values look equal although they differ.
			d.out = append(d.out, &carav1.FieldDiff{Path: path + "[" + k + "]", Old: redact(was), New: redact(is)})
			continue
		}
		d.add(path+"["+k+"]", was, is)
	}
}

func isSecret(fd protoreflect.FieldDescriptor) bool {
	return fd.ContainingMessage().FullName() == (*carav1.Secret)(nil).ProtoReflect().Descriptor().FullName() &&
		(fd.Name() == "data" || fd.Name() == "string_data")
}

func redact(s string) string {
	if s == "" {
		return ""
	}
	return Redacted
}

func (d *differ) list(path string, fd protoreflect.FieldDescriptor, a, b protoreflect.List) {
	namesA, okA := elementNames(fd, a)
	namesB, okB := elementNames(fd, b)
	if !okA || !okB {
		d.places(path, fd, a, b)
		return
	}
	for i, name := range namesA {
		at := path + "[" + name + "]"
		if j := slices.Index(namesB, name); j >= 0 {
			d.message(at, a.Get(i).Message(), b.Get(j).Message())
		} else {
			d.add(at, valueText(fd, a.Get(i)), "")
		}
	}
	for j, name := range namesB {
		if !slices.Contains(namesA, name) {
			d.add(path+"["+name+"]", "", valueText(fd, b.Get(j)))
		}
	}
	d.order(path, namesA, namesB)
}

// order reports a changed order of the elements in both lists: the order of services is their start order.
func (d *differ) order(path string, a, b []string) {
	stay := func(names, other []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(other, n) })
	}
	if !slices.Equal(stay(a, b), stay(b, a)) {
		d.add(path, quote(a), quote(b))
	}
}

// places compares a list without names: scalars as one value, messages by index.
func (d *differ) places(path string, fd protoreflect.FieldDescriptor, a, b protoreflect.List) {
	if fd.Message() == nil {
		d.add(path, listText(fd, a), listText(fd, b))
		return
	}
	for i := range max(a.Len(), b.Len()) {
		at := Element(path, i)
		switch {
		case i >= a.Len():
			d.add(at, "", valueText(fd, b.Get(i)))
		case i >= b.Len():
			d.add(at, valueText(fd, a.Get(i)), "")
		default:
			d.message(at, a.Get(i).Message(), b.Get(i).Message())
		}
	}
}

// elementNames returns a unique name for each element of a list of messages; false if there is none.
func elementNames(fd protoreflect.FieldDescriptor, l protoreflect.List) ([]string, bool) {
	if fd.Message() == nil {
		return nil, false
	}
	var key protoreflect.FieldDescriptor
	for _, name := range []protoreflect.Name{"mount_path", "name", "path", "service", "type"} {
		if f := fd.Message().Fields().ByName(name); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
			key = f
			break
		}
	}
	if key == nil {
		return nil, false
	}
	names := make([]string, 0, l.Len())
	seen := make(map[string]bool, l.Len())
	for i := range l.Len() {
		n := l.Get(i).Message().Get(key).String()
		if n == "" || seen[n] {
			return nil, false
		}
		seen[n] = true
		names = append(names, n)
	}
	return names, true
}

func field(m protoreflect.Message, fd protoreflect.FieldDescriptor) string {
	if !m.Has(fd) {
		return ""
	}
	return valueText(fd, m.Get(fd))
}

// valueText returns a value as compact JSON, or "" if it is absent.
func valueText(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if !v.IsValid() {
		return ""
	}
	switch x := v.Interface().(type) {
	case protoreflect.Message:
		raw, err := protojson.Marshal(x.Interface())
		if err != nil {
			return quote(err.Error())
		}
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return string(raw)
		}
		return b.String()
	case protoreflect.EnumNumber:
		return quote(string(fd.Enum().Values().ByNumber(x).Name()))
	default:
		return quote(x)
	}
}

func listText(fd protoreflect.FieldDescriptor, l protoreflect.List) string {
	if l.Len() == 0 {
		return ""
	}
	all := make([]string, 0, l.Len())
	for i := range l.Len() {
		all = append(all, valueText(fd, l.Get(i)))
	}
	return "[" + strings.Join(all, ",") + "]"
}

// quote returns a scalar or a list of names as JSON without escaping <, > and &.
func quote(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(b.String(), "\n")
}
