package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/manifest"
)

// draft is the version of JSON Schema that all editors know.
const draft = "http://json-schema.org/draft-07/schema#"

// variable matches a value with a variable of the source, which may stand for a number or a truth value.
const variable = `\$\{[A-Za-z_]`

// schema is the part of JSON Schema that manifests need. Messages are written out where they are used: every tool can follow
// that, and none of them contains itself.
type schema struct {
	Schema      string    `json:"$schema,omitempty"`
	Ref         string    `json:"$ref,omitempty"`
	Title       string    `json:"title,omitempty"`
	Description string    `json:"description,omitempty"`
	Type        any       `json:"type,omitempty"` // a word or a list of words
	Named       string    `json:"x-cara-type,omitempty"`
	Const       string    `json:"const,omitempty"`
	Enum        []any     `json:"enum,omitempty"`
	Default     any       `json:"default,omitempty"`
	Pattern     string    `json:"pattern,omitempty"`
	Encoding    string    `json:"contentEncoding,omitempty"`
	ReadOnly    bool      `json:"readOnly,omitempty"`
	Minimum     *int32    `json:"minimum,omitempty"`
	Maximum     *int32    `json:"maximum,omitempty"`
	MinLength   uint64    `json:"minLength,omitempty"`
	MaxLength   uint64    `json:"maxLength,omitempty"`
	MinItems    uint64    `json:"minItems,omitempty"`
	MaxItems    uint64    `json:"maxItems,omitempty"`
	MaxPairs    uint64    `json:"maxProperties,omitempty"`
	Items       *schema   `json:"items,omitempty"`
	Keys        *schema   `json:"propertyNames,omitempty"`
	Additional  any       `json:"additionalProperties,omitempty"` // false, or the schema of a map's values
	Required    []string  `json:"required,omitempty"`
	Properties  schemas   `json:"properties,omitempty"`
	Definitions schemas   `json:"definitions,omitempty"`
	AllOf       []*schema `json:"allOf,omitempty"`
	If          *schema   `json:"if,omitempty"`
	Then        *schema   `json:"then,omitempty"`
}

type schemas map[string]*schema

// writeSchemas writes the schema of each kind, and manifest.schema.json for files with any of them.
func writeSchemas(kinds []protoreflect.MessageDescriptor, dir string) error {
	whole := &schema{
		Schema: draft, Title: "Manifest of Cara", Description: "A Project, Source, Secret or Node.", Type: "object",
		Required: []string{"apiVersion", "kind"}, Properties: schemas{"kind": {Type: "string"}}, Definitions: schemas{},
	}
	for _, m := range kinds {
		s, err := ofMessage(m, 0)
		if err != nil {
			return err
		}
		name := string(m.Name())
		whole.Properties["kind"].Enum = append(whole.Properties["kind"].Enum, name)
		whole.Definitions[name] = s
		whole.AllOf = append(whole.AllOf, &schema{
			If:   &schema{Required: []string{"kind"}, Properties: schemas{"kind": {Const: name}}},
			Then: &schema{Ref: "#/definitions/" + name},
		})
		one := *s
		one.Schema, one.Title = draft, name
		if err := writeSchema(filepath.Join(dir, strings.ToLower(name)+".schema.json"), &one); err != nil {
			return err
		}
	}
	return writeSchema(filepath.Join(dir, "manifest.schema.json"), whole)
}

func writeSchema(file string, s *schema) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("encode %s: %w", file, err)
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

func ofMessage(m protoreflect.MessageDescriptor, depth int) (*schema, error) {
	if depth > 20 {
		return nil, fmt.Errorf("%s contains itself: the schemas write messages out, so give them definitions first", m.FullName())
	}
	s := &schema{Description: text(m), Type: "object", Additional: false, Properties: schemas{}}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		sub, err := ofField(f, depth)
		if err != nil {
			return nil, err
		}
		s.Properties[f.JSONName()] = sub
		if isRequired(f) {
			s.Required = append(s.Required, f.JSONName())
		}
	}
	return s, nil
}

// isRequired reports whether a manifest without the field is refused.
func isRequired(f protoreflect.FieldDescriptor) bool {
	r := constraints(f)
	return r.GetRequired() || r.GetString().HasConst() || r.GetRepeated().GetMinItems() > 0
}

func ofField(f protoreflect.FieldDescriptor, depth int) (s *schema, err error) {
	r := constraints(f)
	switch {
	case f.IsMap():
		s = &schema{Type: "object", MaxPairs: r.GetMap().GetMaxPairs(), Keys: &schema{MaxLength: r.GetMap().GetKeys().GetString().GetMaxLen()}}
		if s.Keys.MaxLength == 0 {
			s.Keys = nil
		}
		s.Additional, err = ofValue(f.MapValue(), r.GetMap().GetValues(), depth)
	case f.IsList():
		s = &schema{Type: "array", MinItems: r.GetRepeated().GetMinItems(), MaxItems: r.GetRepeated().GetMaxItems()}
		s.Items, err = ofValue(f, r.GetRepeated().GetItems(), depth)
	default:
		if s, err = ofValue(f, r, depth); err == nil {
			s.Default = defaultValue(f)
		}
	}
	if err != nil {
		return nil, err
	}
	s.Description = strings.TrimSpace(text(f) + "\n\n" + s.Description)
	if f.Name() == "status" && depth == 0 { // Cara ignores it in a manifest
		s.ReadOnly, s.Additional = true, nil
	}
	return s, nil
}

func ofValue(f protoreflect.FieldDescriptor, r *validate.FieldRules, depth int) (*schema, error) {
	if m := ours(f); m != nil {
		return ofMessage(m, depth+1)
	}
	switch f.Kind() { //nolint:exhaustive // the contract has no other
	case protoreflect.StringKind:
		return ofString(f, r), nil
	case protoreflect.BytesKind:
		return &schema{Type: "string", Named: single(f), Encoding: "base64"}, nil
	case protoreflect.BoolKind:
		return &schema{Type: []string{"boolean", "string"}, Named: "boolean", Pattern: variable}, nil
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return ofInteger(r), nil
	case protoreflect.MessageKind:
		if f.Message().FullName() == "google.protobuf.Timestamp" {
			return &schema{Type: "string", Named: single(f), Pattern: `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$|` + variable}, nil
		}
		return &schema{Type: "string", Named: single(f)}, nil // a duration, in a status only
	}
	return nil, fmt.Errorf("%s: no schema for a field of kind %s", f.FullName(), f.Kind())
}

func ofInteger(r *validate.FieldRules) *schema {
	s := &schema{Type: []string{"integer", "string"}, Named: "integer", Pattern: variable}
	if s.Enum = choices(r.GetInt32().GetIn()); len(s.Enum) > 0 {
		s.Type, s.Pattern = "integer", ""
	}
	if i := r.GetInt32(); i.HasGte() {
		s.Minimum = new(i.GetGte())
	}
	if i := r.GetInt32(); i.HasLte() {
		s.Maximum = new(i.GetLte())
	}
	return s
}

func ofString(f protoreflect.FieldDescriptor, r *validate.FieldRules) *schema {
	rules := r.GetString()
	s := &schema{
		Type: "string", Const: rules.GetConst(), Enum: choices(rules.GetIn()),
		Pattern: rules.GetPattern(), MinLength: rules.GetMinLen(), MaxLength: rules.GetMaxLen(),
	}
	if r.GetRequired() {
		s.MinLength = max(s.MinLength, 1)
	}
	if manifest.IsDuration(f) {
		s.Named = "duration"
	}
	if manifest.TakesNumbers(f) {
		s.Type = []string{"string", "number"}
		s.Named = "string or number"
	}
	return s
}

// defaultValue returns the default that the comment of a field names, as a value of its type; nil if it names none.
func defaultValue(f protoreflect.FieldDescriptor) any {
	word := defaultOf(text(f))
	switch {
	case word == "", f.Kind() == protoreflect.MessageKind:
		return nil
	case f.Kind() == protoreflect.BoolKind:
		return word == "true"
	case slices.Contains([]protoreflect.Kind{protoreflect.Int32Kind, protoreflect.Int64Kind}, f.Kind()):
		if n, err := strconv.ParseInt(word, 10, 64); err == nil {
			return n
		}
		return nil
	}
	return word
}

// text is what stands above a message or field in the contract, in one line.
func text(d protoreflect.Descriptor) string {
	return strings.Join(strings.Fields(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments), " ")
}
