package manifest

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
)

// scalar parses a scalar as exactly the field's type. A value that a YAML reader would parse as a number is never silently
// converted to text.
func (p scalars) scalar(n *yaml.Node, field string, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	at := n
	n = Follow(n)
	if n == nil || !p.charge(n) {
		return protoreflect.Value{}, false
	}
	if n.Kind != yaml.ScalarNode {
		p.problem(at, field, "must be %s, not %s", wanted(fd), p.describe(n))
		return protoreflect.Value{}, false
	}
	if n = p.expand(n, field, fd); n == nil {
		return protoreflect.Value{}, false
	}
	v, bad := p.convert(n, fd)
	if bad != "" {
		p.problem(at, field, "%s", bad)
		return protoreflect.Value{}, false
	}
	return v, true
}

func (p scalars) convert(n *yaml.Node, fd protoreflect.FieldDescriptor) (v protoreflect.Value, bad string) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		if n.Tag == tagString || n.Tag == tagTimestamp || (TakesNumbers(fd) && (n.Tag == tagInt || n.Tag == tagFloat)) {
			return protoreflect.ValueOfString(n.Value), ""
		}
		if n.Tag == tagInt || n.Tag == tagFloat || n.Tag == tagBool {
			return v, p.notText(n, fd)
		}
	case protoreflect.BoolKind:
		if n.Tag == tagBool {
			return protoreflect.ValueOfBool(strings.EqualFold(n.Value, "true")), ""
		}
		return v, fmt.Sprintf("must be true or false, not %s", p.describe(n))
	case protoreflect.Int32Kind:
		i, what := p.integer(n, 32)
		return protoreflect.ValueOfInt32(int32(i)), what
	case protoreflect.Int64Kind:
		i, what := p.integer(n, 64)
		return protoreflect.ValueOfInt64(i), what
	case protoreflect.BytesKind:
		if n.Tag == tagString || n.Tag == tagBinary {
			raw, err := base64.StdEncoding.DecodeString(strings.NewReplacer(" ", "", "\t", "").Replace(n.Value)) // it ignores line breaks
			if err == nil {
				return protoreflect.ValueOfBytes(raw), ""
			}
			if strings.HasPrefix(n.Value, api.SOPSValue) {
				return v, api.StillEncrypted
			}
			return v, "must be base64; use stringData for plain text"
		}
	default:
		return v, "cannot be written in a manifest"
	}
	return v, fmt.Sprintf("must be %s, not %s", wanted(fd), p.describe(n))
}

// notText says what to write instead of a number or a truth value.
func (p scalars) notText(n *yaml.Node, fd protoreflect.FieldDescriptor) string {
	if IsDuration(fd) && n.Tag == tagInt {
		return fmt.Sprintf("must be a duration, not a number; write its unit too: %ss", clip(n.Value, 20))
	}
	text := fmt.Sprintf("must be text, not %s; put it in quotes", p.describe(n))
	if !p.secret {
		text += fmt.Sprintf(": %q", clip(n.Value, 80))
	}
	return text
}

// IsDuration reports whether a text field holds a duration. A number without a unit is invalid there, quoted or not.
func IsDuration(fd protoreflect.FieldDescriptor) bool {
	switch fd.FullName() {
	case "cara.v1.SourceSpec.interval", "cara.v1.ProjectSpec.reschedule_after", "cara.v1.Service.stop_grace_period",
		"cara.v1.Healthcheck.interval", "cara.v1.Healthcheck.timeout", "cara.v1.Healthcheck.start_period":
		return true
	}
	return false
}

// TakesNumbers reports whether a text field accepts plain numbers: quantities as in Kubernetes, users, modes.
func TakesNumbers(fd protoreflect.FieldDescriptor) bool {
	switch fd.FullName() {
	case "cara.v1.ResourceList.cpu", "cara.v1.ResourceList.memory", "cara.v1.Service.shm_size", "cara.v1.Service.user",
		"cara.v1.File.mode":
		return true
	}
	return false
}

func (p scalars) integer(n *yaml.Node, bits int) (int64, string) {
	if n.Tag != tagInt {
		return 0, fmt.Sprintf("must be a whole number, not %s", p.describe(n))
	}
	digits := strings.TrimPrefix(strings.TrimPrefix(n.Value, "-"), "+")
	if len(digits) > 1 && digits[0] == '0' || strings.Contains(digits, "_") {
		return 0, fmt.Sprintf("must be a plain decimal number, not %s", p.describe(n))
	}
	i, err := strconv.ParseInt(n.Value, 10, bits)
	if err != nil {
		return 0, fmt.Sprintf("%s is out of range; it must lie between %d and %d", p.describe(n), -1<<(bits-1), uint64(1)<<(bits-1)-1)
	}
	return i, ""
}

// timestamp parses RFC 3339 with a time zone. Without a zone, the time would depend on the machine.
func (p scalars) timestamp(n *yaml.Node, field string, into *timestamppb.Timestamp) bool {
	at := n
	n = Follow(n)
	if n == nil || !p.charge(n) {
		return false
	}
	var t time.Time
	if n = p.expand(n, field, nil); n == nil {
		return false
	}
	if n.Kind != yaml.ScalarNode || (n.Tag != tagString && n.Tag != tagTimestamp) {
		p.problem(at, field, "must be a time such as 2026-01-31T18:00:00Z, not %s", p.describe(n))
		return false
	}
	if err := t.UnmarshalText([]byte(n.Value)); err != nil {
		p.problem(at, field, "%s is no RFC 3339 time with zone; write one such as 2026-01-31T18:00:00Z or 2026-01-31T19:00:00+01:00", p.describe(n))
		return false
	}
	into.Seconds, into.Nanos = t.Unix(), int32(t.Nanosecond())
	return true
}

// plainTag rejects custom tags on lists and maps.
func (p scalars) plainTag(n *yaml.Node, field string) {
	if n.Tag == tagMap || n.Tag == tagSeq {
		return
	}
	tag := "the tag"
	if !p.secret {
		tag = fmt.Sprintf("the tag %q", clip(n.Tag, 80))
	}
	p.problem(n, field, "%s means nothing here; take it out", tag)
}

func wanted(fd protoreflect.FieldDescriptor) string {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return "a whole number"
	case protoreflect.BytesKind:
		return "base64 text"
	default:
		return "text"
	}
}

// describe describes a node for a problem. It quotes nothing of a Secret.
func (p scalars) describe(n *yaml.Node) string { return describe(n, p.secret) }

// describe describes a node, without its content if that is secret.
func describe(n *yaml.Node, secret bool) string {
	n = Follow(n)
	if n == nil {
		return "an alias of itself"
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias of aliases"
	case yaml.DocumentNode:
		return "a document"
	case yaml.ScalarNode:
	}
	value := clip(n.Value, 80)
	what := map[string]string{tagBool: "truth value", tagInt: "number", tagFloat: "number", tagString: "text", tagTimestamp: "text"}[n.Tag]
	switch {
	case n.Tag == tagNull:
		return "null"
	case n.Tag == tagMerge:
		return "the merge key <<"
	case what == "" && secret:
		return "a value with a tag"
	case what == "":
		return fmt.Sprintf("a value with the tag %q", clip(n.Tag, 80))
	case secret:
		return "a " + what
	case what == "text":
		return fmt.Sprintf("the text %q", value)
	}
	return "the " + what + " " + value
}
