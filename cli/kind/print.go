package kind

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"k8s.io/client-go/util/jsonpath"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	"github.com/caravanserai/cara/manifest"
)

// Formats are the values of -o; the empty one is the table, and Wide a table with more columns.
const (
	Wide    = "wide"
	Formats = "table|json|yaml|wide|name|jsonpath=TEMPLATE"
)

// ParseFormat validates the value of -o. "table" is another name of the default.
func ParseFormat(output string) (string, error) {
	switch output {
	case "", "table":
		return "", nil
	case "json", "yaml", Wide, "name":
		return output, nil
	}
	if strings.HasPrefix(output, "jsonpath=") {
		return output, nil
	}
	return "", fmt.Errorf("unknown output format %q: want one of %s", output, Formats)
}

// Print prints objects in a format other than a table. A single object is printed alone unless list is set; several are a
// list.
func Print(w io.Writer, output string, list bool, objects []proto.Message) error {
	switch output {
	case "name":
		for _, o := range objects {
			fmt.Fprintf(w, "%s/%s\n", strings.ToLower(cmp.Or(api.Kind(o), string(o.ProtoReflect().Descriptor().Name()))), term.Clean(api.Meta(o).GetName()))
		}
		return nil
	case "yaml":
		data, err := manifest.EncodeWithStatus(objects...)
		if err != nil {
			return fmt.Errorf("encode as YAML: %w", err)
		}
		return write(w, term.Clean(string(data)))
	}
	value, err := document(list, objects)
	if err != nil {
		return err
	}
	if template, ok := strings.CutPrefix(output, "jsonpath="); ok {
		var b strings.Builder
		if err := printPath(&b, template, value); err != nil {
			return err
		}
		return write(w, term.Clean(b.String())+"\n")
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("encode as JSON: %w", err)
	}
	return write(w, escape(b.String()))
}

// PrintLine prints an object as one line of JSON.
func PrintLine(w io.Writer, m proto.Message) error {
	data, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode as JSON: %w", err)
	}
	return write(w, escape(string(data))+"\n")
}

func write(w io.Writer, s string) error {
	if _, err := io.WriteString(w, s); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// escape replaces control characters in JSON by \u escapes. The JSON keeps its meaning, and a terminal does not interpret
// them.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// document returns what JSON shows: the object, or {"items": [...]}.
func document(list bool, objects []proto.Message) (any, error) {
	items := make([]any, 0, len(objects))
	for _, o := range objects {
		data, err := protojson.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encode as JSON: %w", err)
		}
		var item any
		if err := json.Unmarshal(data, &item); err != nil {
			return nil, fmt.Errorf("encode as JSON: %w", err)
		}
		items = append(items, item)
	}
	if !list && len(items) == 1 {
		return items[0], nil
	}
	return map[string]any{"items": items}, nil
}

func printPath(w io.Writer, template string, value any) error {
	if !strings.Contains(template, "{") {
		template = "{" + template + "}"
	}
	p := jsonpath.New("output").AllowMissingKeys(true)
	if err := p.Parse(template); err != nil {
		return fmt.Errorf("jsonpath %q: %w", template, err)
	}
	if err := p.Execute(w, value); err != nil {
		return fmt.Errorf("jsonpath %q: %w", template, err)
	}
	return nil
}
