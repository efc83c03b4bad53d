package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/caravanserai/cara/gen/jsonschema"
)

// TestSchemas checks that the schemas for editors accept what Cara accepts, and mark what an editor can know to be wrong.
func TestSchemas(t *testing.T) {
	whole := compile(t, "manifest")
	for _, file := range files(t, "good") {
		for i, doc := range plainDocuments(t, file) {
			if err := whole.Validate(doc); err != nil {
				t.Errorf("%s, document %d: %v", file, i+1, err)
			}
			if err := compile(t, kindOf(doc)).Validate(doc); err != nil {
				t.Errorf("%s, document %d, with the schema of its kind: %v", file, i+1, err)
			}
		}
	}
	// In the other files is what only Cara can know: rules between fields, and YAML that is not usual.
	for _, name := range []string{"kind.yaml", "policies.yaml", "required.yaml", "types.yaml", "typo.json", "typo.yaml", "timestamps.yaml"} {
		marked := false
		for _, doc := range plainDocuments(t, filepath.Join(fixtures, "bad", name)) {
			marked = marked || whole.Validate(doc) != nil
		}
		if !marked {
			t.Errorf("the schema marks nothing in %s", name)
		}
	}
}

// TestSchemaMarks holds single mistakes, and what looks like one, against the schema of projects.
func TestSchemaMarks(t *testing.T) {
	s := compile(t, "project")
	for text, ok := range map[string]bool{
		`services: [{name: web, image: nginx}]`:                                                                        true,
		`services: [{name: web, image: nginx, pullPolicy: Sometimes}]`:                                                 false,
		`services: [{name: web, image: nginx, readOnly: "yes"}]`:                                                       false,
		`services: [{name: web, image: nginx, readOnly: "${READ_ONLY}"}]`:                                              true,
		`services: [{name: web, image: nginx, resources: {limits: {cpu: 2, memory: 1Gi}}}]`:                            true,
		`services: [{name: web, image: nginx, environment: {A: b}}]`:                                                   false,
		`services: [{name: web}]`:                                                                                      false,
		`services: []`:                                                                                                 false,
		`services: [{name: web, image: nginx}], expireAt: tomorrow`:                                                    false,
		`services: [{name: web, image: nginx}], ingress: [{name: web, host: a, target: {service: web, port: 80}}]`:     true,
		`services: [{name: web, image: nginx}], ingress: [{name: web, host: a, target: {service: web, port: 800000}}]`: false,
		`services: [{name: web, image: nginx}], ingress: [{name: web, host: a, target: {service: web, port: "${P}"}}]`: true,
		`services: [{name: web, image: nginx}], ingress: [{name: web, host: a, target: {service: web, port: "80"}}]`:   false,
	} {
		doc := decodeAll(t, "apiVersion: caravanserai/v1\nkind: Project\nmetadata: {name: shop}\nspec: {"+text+"}\n")[0]
		if err := s.Validate(doc); (err == nil) != ok {
			t.Errorf("{%s}: accepted %v, want %v: %v", text, err == nil, ok, err)
		}
	}
}

func compile(t *testing.T, kind string) *validator.Schema {
	t.Helper()
	text, err := jsonschema.Files.ReadFile(strings.ToLower(kind) + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var parsed any
	if err := json.Unmarshal(text, &parsed); err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("https://cara.example.com/schemas/"+kind+".json", parsed); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("https://cara.example.com/schemas/" + kind + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kindOf(doc any) string {
	kind, _ := doc.(map[string]any)["kind"].(string)
	return kind
}

func plainDocuments(t *testing.T, file string) []any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(file) == ".json" { // YAML reads other escapes
		return decodeJSON(t, text)
	}
	return decodeAll(t, strings.TrimPrefix(string(text), "\uFEFF"))
}

func decodeJSON(t *testing.T, text []byte) (docs []any) {
	t.Helper()
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var doc any
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return docs
		} else if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
}

// decodeAll decodes documents as editors do.
func decodeAll(t *testing.T, text string) (docs []any) {
	t.Helper()
	for dec := yaml.NewDecoder(strings.NewReader(text)); ; {
		var n yaml.Node
		if err := dec.Decode(&n); errors.Is(err, io.EOF) {
			return slices.DeleteFunc(docs, func(d any) bool { return d == nil })
		} else if err != nil {
			t.Fatal(err)
		}
		asInEditors(&n)
		var doc any
		if err := n.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
}

// asInEditors makes text of times, and drops fields that are null: they are not set, and an editor marks them.
func asInEditors(n *yaml.Node) {
	if n.Tag == "!!timestamp" {
		n.Tag = "!!str"
	}
	if n.Kind == yaml.MappingNode {
		for i := len(n.Content) - 2; i >= 0; i -= 2 {
			if n.Content[i+1].Tag == "!!null" {
				n.Content = slices.Delete(n.Content, i, i+2)
			}
		}
	}
	for _, c := range n.Content {
		asInEditors(c)
	}
}
