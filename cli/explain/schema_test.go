package explain

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestRules checks the words for bounds, also for those that no manifest has today. A lower bound of 1 is the mark `required`.
func TestRules(t *testing.T) {
	for schema, want := range map[string]string{
		`{}`:                               "",
		`{"minLength": 1}`:                 "",
		`{"minLength": 1, "maxLength": 5}`: "at most 5 characters",
		`{"minLength": 2, "maxLength": 5}`: "2 to 5 characters",
		`{"minItems": 2}`:                  "at least 2 elements",
		`{"maxItems": 3, "items": {"maxLength": 5}}`: "at most 3 elements; at most 5 characters each",
		`{"maxProperties": 4}`:                       "at most 4 keys",
		`{"minimum": 0, "maximum": 9}`:               "0 to 9",
		`{"minimum": 1}`:                             "at least 1",
		`{"maximum": 9}`:                             "at most 9",
		`{"const": "v1"}`:                            "always v1",
		`{"enum": ["a", "b"], "default": "a"}`:       "one of a, b; default a",
	} {
		f := &Field{}
		if err := json.Unmarshal([]byte(schema), f); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(f.rules(), "; "); got != want {
			t.Errorf("%s: %q, want %q", schema, got, want)
		}
	}
}
