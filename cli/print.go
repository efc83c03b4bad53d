package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"k8s.io/client-go/util/jsonpath"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/manifest"
)

// formats that -o takes, beside jsonpath=TEMPLATE; the empty one is the table.
const formats = "json|yaml|wide|name|jsonpath=TEMPLATE"

func checkFormat(output string) error {
	switch output {
	case "", "json", "yaml", "wide", "name":
		return nil
	}
	if strings.HasPrefix(output, "jsonpath=") {
		return nil
	}
	return fmt.Errorf("unknown output format %q: want one of %s", output, formats)
}

// asJSON is a message as indented JSON. protojson's own spaces differ from build to build on purpose.
func asJSON(m proto.Message) ([]byte, error) {
	data, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode as JSON: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return nil, fmt.Errorf("encode as JSON: %w", err)
	}
	return out.Bytes(), nil
}

// printObjects prints objects in a format other than a table: one as itself, several (or a list of one) as a list.
func printObjects(w io.Writer, output string, list bool, objects []proto.Message) error {
	switch {
	case output == "name":
		for _, o := range objects {
			fmt.Fprintf(w, "%s/%s\n", strings.ToLower(api.Kind(o)), clean(api.Meta(o).GetName()))
		}
		return nil
	case output == "yaml":
		data, err := manifest.EncodeWithStatus(objects...)
		if err != nil {
			return fmt.Errorf("encode as YAML: %w", err)
		}
		_, err = w.Write(data)
		return err
	}
	value, err := document(list, objects)
	if err != nil {
		return err
	}
	if template, ok := strings.CutPrefix(output, "jsonpath="); ok {
		return printPath(w, template, value)
	}
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode as JSON: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", data)
	return err
}

// document is what JSON shows: the object, or {"items": [...]}.
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
	_, err := fmt.Fprintln(w)
	return err
}
