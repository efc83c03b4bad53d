package manifest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Encode writes objects as YAML documents, with fields in the order of the contract (metadata before spec) and map keys
// sorted. Parse of the result returns equal objects. The status is left out.
func Encode(objects ...proto.Message) ([]byte, error) { return encode(objects, false) }

// EncodeWithStatus is Encode with the status.
func EncodeWithStatus(objects ...proto.Message) ([]byte, error) { return encode(objects, true) }

func encode(objects []proto.Message, status bool) ([]byte, error) {
	if len(objects) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for _, o := range objects {
		n, err := messageNode(o.ProtoReflect(), !status)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", o.ProtoReflect().Descriptor().Name(), err)
		}
		if err := enc.Encode(n); err != nil {
			return nil, fmt.Errorf("encode %s: %w", o.ProtoReflect().Descriptor().Name(), err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b.Bytes(), nil
}

func messageNode(m protoreflect.Message, dropStatus bool) (*yaml.Node, error) {
	if t, ok := m.Interface().(*timestamppb.Timestamp); ok {
		if err := t.CheckValid(); err != nil {
			return nil, err
		}
		return plain(tagTimestamp, t.AsTime().Format(time.RFC3339Nano)), nil
	}
	if d, ok := m.Interface().(*durationpb.Duration); ok { // only in status and answers; as in JSON
		text, err := protojson.Marshal(d)
		return textNode(strings.Trim(string(text), `"`)), err
	}
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: tagMap}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) || (dropStatus && fd.Name() == "status") {
			continue
		}
		v, err := fieldNode(fd, m.Get(fd))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fd.JSONName(), err)
		}
		n.Content = append(n.Content, textNode(fd.JSONName()), v)
	}
	return n, nil
}

func fieldNode(fd protoreflect.FieldDescriptor, v protoreflect.Value) (*yaml.Node, error) {
	switch {
	case fd.IsList():
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: tagSeq}
		for i := range v.List().Len() {
			e, err := valueNode(fd, v.List().Get(i))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, e)
		}
		return n, nil
	case fd.IsMap():
		return mapNode(fd, v.Map())
	}
	return valueNode(fd, v)
}

func mapNode(fd protoreflect.FieldDescriptor, m protoreflect.Map) (*yaml.Node, error) {
	var keys []string
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k.String())
		return true
	})
	slices.Sort(keys)
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: tagMap}
	for _, k := range keys {
		v, err := valueNode(fd.MapValue(), m.Get(protoreflect.ValueOfString(k).MapKey()))
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, textNode(k), v)
	}
	return n, nil
}

func valueNode(fd protoreflect.FieldDescriptor, v protoreflect.Value) (*yaml.Node, error) {
	switch x := v.Interface().(type) {
	case protoreflect.Message:
		return messageNode(x, false)
	case string:
		return textNode(x), nil
	case []byte:
		return textNode(base64.StdEncoding.EncodeToString(x)), nil
	case bool:
		return plain(tagBool, strconv.FormatBool(x)), nil
	case int32:
		return plain(tagInt, strconv.FormatInt(int64(x), 10)), nil
	case int64:
		return plain(tagInt, strconv.FormatInt(x, 10)), nil
	case float32: // not of manifests: measurements
		text := strconv.FormatFloat(float64(x), 'f', -1, 32)
		if strings.Contains(text, ".") {
			return plain(tagFloat, text), nil
		}
		return plain(tagInt, text), nil
	}
	return nil, fmt.Errorf("no YAML for a field of kind %s", fd.Kind())
}

func plain(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// textNode returns a node that every YAML reader parses as text: several lines as a block, and words that some readers
// would parse as another type in quotes.
func textNode(s string) *yaml.Node {
	n := plain(tagString, s)
	switch {
	case strings.Contains(s, "\n") && blockSafe(s):
		n.Style = yaml.LiteralStyle
	case needsQuotes(s):
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// blockSafe reports whether a block preserves the text.
func blockSafe(s string) bool {
	return strings.TrimSpace(s) != "" && s[0] != ' ' && s[0] != '\n' && !strings.ContainsAny(s, "\r\t\u0085\u2028\u2029\uFEFF") &&
		!strings.Contains(s, " \n") && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f })
}

func needsQuotes(s string) bool {
	switch strings.ToLower(s) {
	case "", "y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<", "=":
		return true
	}
	return strings.ContainsAny(s, "\n\r\t\u0085\u2028\u2029\uFEFF") || strings.TrimSpace(s) != s
}
