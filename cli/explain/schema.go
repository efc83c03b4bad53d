package explain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caravanserai/cara/gen/jsonschema"
	"github.com/caravanserai/cara/manifest"
)

// Field is a field of a manifest, read from the JSON Schema of its kind.
type Field struct {
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Type        json.RawMessage   `json:"type"`
	Named       string            `json:"x-cara-type"`
	Const       string            `json:"const"`
	Enum        []any             `json:"enum"`
	Default     any               `json:"default"`
	Minimum     *int64            `json:"minimum"`
	Maximum     *int64            `json:"maximum"`
	MinLength   int               `json:"minLength"`
	MaxLength   int               `json:"maxLength"`
	MinItems    int               `json:"minItems"`
	MaxItems    int               `json:"maxItems"`
	MaxPairs    int               `json:"maxProperties"`
	Items       *Field            `json:"items"`
	Additional  json.RawMessage   `json:"additionalProperties"`
	Required    []string          `json:"required"`
	Properties  map[string]*Field `json:"properties"`
}

// kinds are the kinds of manifests, in the order of the documentation.
func kinds() []string { return []string{"project", "source", "secret", "node"} }

// schemaOf returns the JSON Schema of a kind; "manifest" is the one for files with any kind.
func schemaOf(kind string) ([]byte, error) {
	text, err := jsonschema.Files.ReadFile(kind + ".schema.json")
	if err != nil {
		return nil, fmt.Errorf("read the schema of %s: %w", kind, err)
	}
	return text, nil
}

func read(kind string) (*Field, error) {
	text, err := schemaOf(kind)
	if err != nil {
		return nil, err
	}
	f := &Field{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // whole numbers are shown as they are
	if err := dec.Decode(f); err != nil {
		return nil, fmt.Errorf("read the schema of %s: %w", kind, err)
	}
	return f, nil
}

// split splits a path such as project.spec.services[0].image into its steps. Indexes mean nothing: all elements of a list
// have the same fields.
func split(path string) []string {
	steps := strings.Split(path, ".")
	for i := range steps {
		steps[i], _, _ = strings.Cut(steps[i], "[")
	}
	return steps
}

// find returns the field at the end of a path below f, which at names.
func find(f *Field, at string, steps []string) (*Field, error) {
	for _, step := range steps {
		names := f.below().names()
		if len(names) == 0 {
			return nil, fmt.Errorf("%s has no fields; it is %s", at, article(f.typeName()))
		}
		next := f.below().Properties[step]
		if next == nil {
			hint := ""
			if near := manifest.Similar(step, names); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			return nil, fmt.Errorf("%s has no field %q%s; its fields are %s", at, step, hint, strings.Join(names, ", "))
		}
		f, at = next, at+"."+step
	}
	return f, nil
}

// below is what has the fields below f: f itself, or the elements of its list or map.
func (f *Field) below() *Field {
	switch {
	case f.Items != nil:
		return f.Items
	case f.values() != nil:
		return f.values()
	}
	return f
}

// values describes the values of a map; nil if f is not a map.
func (f *Field) values() *Field {
	v := &Field{}
	if len(f.Additional) == 0 || json.Unmarshal(f.Additional, v) != nil {
		return nil // `false` for what is not a map
	}
	return v
}

func (f *Field) names() []string { return slices.Sorted(maps.Keys(f.Properties)) }

// typeName is the type in words: `list of object`.
func (f *Field) typeName() string {
	switch v := f.values(); {
	case f.Items != nil:
		return "list of " + f.Items.typeName()
	case v != nil:
		return "map of " + v.typeName()
	case f.Named != "":
		return f.Named
	}
	var word string
	if json.Unmarshal(f.Type, &word) != nil {
		return "value"
	}
	return word
}

func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}

// rules are the bounds, the allowed values and the default, in words.
func (f *Field) rules() []string {
	var out []string
	if f.Const != "" {
		out = append(out, "always "+f.Const)
	}
	if len(f.Enum) > 0 {
		words := make([]string, len(f.Enum))
		for i, v := range f.Enum {
			words[i] = fmt.Sprint(v)
		}
		out = append(out, "one of "+strings.Join(words, ", "))
	}
	bound := func(low, high int, what string) {
		switch {
		case low > 1 && high > 0:
			out = append(out, fmt.Sprintf("%d to %d %s", low, high, what))
		case low > 1:
			out = append(out, fmt.Sprintf("at least %d %s", low, what))
		case high > 0:
			out = append(out, fmt.Sprintf("at most %d %s", high, what))
		}
	}
	bound(f.MinLength, f.MaxLength, "characters")
	bound(f.MinItems, f.MaxItems, "elements")
	bound(0, f.MaxPairs, "keys")
	if f.Items != nil {
		bound(f.Items.MinLength, f.Items.MaxLength, "characters each")
	}
	switch {
	case f.Minimum != nil && f.Maximum != nil:
		out = append(out, strconv.FormatInt(*f.Minimum, 10)+" to "+strconv.FormatInt(*f.Maximum, 10))
	case f.Minimum != nil:
		out = append(out, "at least "+strconv.FormatInt(*f.Minimum, 10))
	case f.Maximum != nil:
		out = append(out, "at most "+strconv.FormatInt(*f.Maximum, 10))
	}
	if f.Default != nil {
		out = append(out, fmt.Sprintf("default %v", f.Default))
	}
	return out
}
