package manifest

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
)

// bound checks a document's tree against the limits before it is converted.
func (p *parser) bound(n *yaml.Node, depth int) bool {
	if depth > maxDepth {
		p.problem(n, "", "lists and maps are nested more than %d deep; flatten them", maxDepth)
		p.stopped = true
		return false
	}
	if n.Kind == yaml.AliasNode {
		return p.alias(n)
	}
	for _, c := range n.Content {
		next := depth
		if c.Kind == yaml.MappingNode || c.Kind == yaml.SequenceNode {
			next++
		}
		if !p.bound(c, next) {
			return false
		}
	}
	return true
}

func (p *parser) alias(n *yaml.Node) bool {
	if p.aliases++; p.aliases > maxAliases {
		p.problem(n, "", "the file has more than %d aliases; write the values out or split the file", maxAliases)
		p.stopped = true
		return false
	}
	return true
}

// charge counts a node at each visit, so an alias counts as the nodes that it refers to.
func (p *parser) charge(n *yaml.Node) bool {
	if p.stopped {
		return false
	}
	p.nodes++
	p.bytes += len(n.Value)
	switch {
	case p.nodes > p.limits.Nodes:
		p.problem(n, "", "the file has more than %d YAML nodes once its aliases are followed; write less by alias", p.limits.Nodes)
	case p.bytes > p.limits.Bytes:
		p.problem(n, "", "the file has more than %d bytes of values once its aliases are followed; write less by alias", p.limits.Bytes)
	default:
		return true
	}
	p.stopped = true
	return false
}

// pairs returns a map's keys and values. Duplicate keys are problems. The map's own keys take precedence over merge keys.
func (p *parser) pairs(n *yaml.Node, field string, depth int) []pair {
	var own []pair
	var merged []*yaml.Node
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := Follow(n.Content[i]), n.Content[i+1]
		if !p.charge(key) {
			return nil
		}
		switch {
		case key.Tag == tagMerge:
			merged = append(merged, value)
			continue
		case key.Kind != yaml.ScalarNode || key.Tag == tagNull:
			p.problem(n.Content[i], field, "a key must be a word, not %s", scalars{p}.describe(key))
			continue
		}
		if first, twice := seen[key.Value]; twice {
			p.duplicate(n.Content[i], field, key.Value, first)
			continue
		}
		seen[key.Value] = n.Content[i].Line
		own = append(own, pair{n.Content[i], value})
	}
	for _, m := range merged {
		for _, other := range p.merge(m, field, depth) {
			name := Follow(other.key).Value
			if _, have := seen[name]; !have {
				seen[name] = other.key.Line
				own = append(own, other)
			}
		}
	}
	return own
}

func (p *parser) duplicate(n *yaml.Node, field, key string, first int) {
	if p.secret && !api.IsSecretKey(key) {
		p.problem(n, field, "a key appears twice, first at line %d; keep one of them", first)
		return
	}
	p.problem(n, join(field, key), "duplicate key %q, first at line %d; keep one of them", clip(key, 80), first)
}

// unknown returns the path of an unknown field. In a Secret it returns the parent, because the key may be a misplaced
// value.
func (p *parser) unknown(parent, name string) string {
	if p.secret {
		return parent
	}
	return join(parent, name)
}

// element returns the path of the value of a map key. In a Secret it returns the map if the key has no value or is not a
// valid key, because it may be a misplaced value.
func (p *parser) element(field, key string, value *yaml.Node) string {
	if p.secret && (value == nil || isNull(value) || !api.IsSecretKey(key)) {
		return field
	}
	return field + "[" + key + "]"
}

// merge returns the pairs of the maps that `<<` refers to: one map, or a list where earlier maps take precedence.
func (p *parser) merge(n *yaml.Node, field string, depth int) []pair {
	if depth > maxDepth {
		p.problem(n, field, "merge keys are nested more than %d deep; flatten them", maxDepth)
		p.stopped = true
	}
	from := Follow(n)
	if from == nil || !p.charge(from) {
		return nil
	}
	switch from.Kind {
	case yaml.MappingNode:
		return p.pairs(from, field, depth+1)
	case yaml.SequenceNode:
		var all []pair
		for _, c := range from.Content {
			if m := Follow(c); m == nil || m.Kind != yaml.MappingNode {
				p.problem(c, field, "<< takes maps, not %s", scalars{p}.describe(c))
				continue
			}
			all = append(all, p.merge(c, field, depth+1)...)
		}
		return all
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
	p.problem(n, field, "<< takes a map or a list of maps, not %s", scalars{p}.describe(from))
	return nil
}

// object fills a message from a document's root. It ignores the status.
func (p *parser) object(root *yaml.Node, m proto.Message) {
	for _, kv := range p.pairs(root, "", 1) {
		if name := Follow(kv.key).Value; name == "status" && m.ProtoReflect().Descriptor().Fields().ByName("status") != nil {
			p.warnings = append(p.warnings, p.fileProblem(kv.key.Line, kv.key.Column, "status",
				"is ignored: status is what is, a manifest says what is wanted; take it out"))
			continue
		}
		p.member(kv, "", m.ProtoReflect())
	}
}

func (p *parser) message(n *yaml.Node, field string, m protoreflect.Message) {
	at := n
	n = Follow(n)
	if n == nil || !p.charge(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.problem(at, field, "must be a map with %s, not %s", strings.Join(fieldNames(m.Descriptor()), ", "), scalars{p}.describe(n))
		return
	}
	scalars{p}.plainTag(n, field)
	for _, kv := range p.pairs(n, field, 1) {
		if p.full() {
			return
		}
		p.member(kv, field, m)
	}
}

// member sets one field of a message.
func (p *parser) member(kv pair, parent string, m protoreflect.Message) {
	name := Follow(kv.key).Value
	fd := m.Descriptor().Fields().ByJSONName(name)
	if fd == nil {
		p.problem(kv.key, p.unknown(parent, name), "%s", unknownField(m.Descriptor(), name))
		return
	}
	field := join(parent, name)
	value := Follow(kv.value)
	switch {
	case value == nil || isNull(value):
		// As in JSON and Kubernetes, null means that the field is absent.
	case fd.IsList():
		p.list(kv.value, field, fd, m.Mutable(fd).List())
	case fd.IsMap():
		p.mapping(kv.value, field, fd, m.Mutable(fd).Map())
	default:
		if v, ok := p.value(kv.value, field, fd, func() protoreflect.Message { return m.Mutable(fd).Message() }); ok {
			m.Set(fd, v)
			p.setSecretVars(m)
		}
	}
}

func (p *parser) list(n *yaml.Node, field string, fd protoreflect.FieldDescriptor, into protoreflect.List) {
	at := n
	n = Follow(n)
	if !p.charge(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.problem(at, field, "must be a list, not %s; begin each entry with \"- \"", scalars{p}.describe(n))
		return
	}
	scalars{p}.plainTag(n, field)
	if most := validate.MaxItems(fd); most > 0 && len(n.Content) > most {
		p.problem(at, field, "has %d entries, at most %d are allowed; take some away", len(n.Content), most)
		return
	}
	for i, c := range n.Content {
		if p.full() {
			return
		}
		element := fmt.Sprintf("%s[%d]", field, i)
		if v := Follow(c); v == nil || isNull(v) {
			p.problem(c, element, "is empty; write a value or take the entry out")
			continue
		}
		if v, ok := p.value(c, element, fd, func() protoreflect.Message { return into.NewElement().Message() }); ok {
			into.Append(v)
		}
	}
}

func (p *parser) mapping(n *yaml.Node, field string, fd protoreflect.FieldDescriptor, into protoreflect.Map) {
	at := n
	n = Follow(n)
	if !p.charge(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.problem(at, field, "must be a map of names to values, not %s", scalars{p}.describe(n))
		return
	}
	scalars{p}.plainTag(n, field)
	for _, kv := range p.pairs(n, field, 1) {
		if p.full() {
			return
		}
		name := Follow(kv.key).Value
		v := Follow(kv.value)
		element := p.element(field, name, v)
		if v == nil || isNull(v) {
			p.problem(kv.key, element, "has no value; write \"\" for an empty one")
			continue
		}
		if v, ok := p.value(kv.value, element, fd.MapValue(), func() protoreflect.Message { return into.NewValue().Message() }); ok {
			into.Set(protoreflect.ValueOfString(name).MapKey(), v)
		}
	}
}

// value parses one value that is neither a list nor a map: a message into the result of open, or a scalar.
func (p *parser) value(n *yaml.Node, field string, fd protoreflect.FieldDescriptor, open func() protoreflect.Message) (protoreflect.Value, bool) {
	if fd.Message() == nil {
		return scalars{p}.scalar(n, field, fd)
	}
	m := open()
	if t, ok := m.Interface().(*timestamppb.Timestamp); ok {
		return protoreflect.ValueOfMessage(m), scalars{p}.timestamp(n, field, t)
	}
	p.message(n, field, m)
	return protoreflect.ValueOfMessage(m), true
}

// header reads apiVersion and kind, and returns an empty object of that kind, or nil.
func (p *parser) header(root *yaml.Node) proto.Message {
	if !p.bound(root, 1) {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		p.problem(root, "", "a document must be a map that begins with apiVersion and kind, not %s", describe(root, true))
		return nil
	}
	_, version := child(root, "apiVersion")
	_, kind := child(root, "kind")
	version, kind = Follow(version), Follow(kind)
	ok := true
	switch {
	case version == nil || isNull(version):
		p.problem(root, "apiVersion", "is missing; write apiVersion: %s", api.APIVersion)
		ok = false
	case version.Value != api.APIVersion:
		p.problem(version, "apiVersion", "%s", p.notOneOf(version, []string{api.APIVersion}))
		ok = false
	}
	switch {
	case kind == nil || isNull(kind):
		p.problem(root, "kind", "is missing; write kind: Project")
		return nil
	case !slices.Contains(manifestKinds(), kind.Value):
		p.problem(kind, "kind", "%s", p.notOneOf(kind, manifestKinds()))
		return nil
	case !ok:
		return nil
	}
	return api.New(kind.Value)
}

// manifestKinds returns the kinds that manifests can have.
func manifestKinds() []string {
	return []string{api.KindProject, api.KindSource, api.KindSecret, api.KindNode}
}

// notOneOf says what a value must be. It quotes nothing of an encrypted file.
func (p *parser) notOneOf(n *yaml.Node, words []string) string {
	if p.encrypted {
		return "must be " + strings.Join(words, " or ")
	}
	if n.Kind != yaml.ScalarNode {
		return "must be " + strings.Join(words, ", ") + ", not " + describe(n, false)
	}
	text := fmt.Sprintf("is %q; it must be %s", clip(n.Value, 80), strings.Join(words, " or "))
	if near := nearest(n.Value, words); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return text
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }
