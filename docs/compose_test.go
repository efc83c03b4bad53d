package docs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/manifest/compose"
)

// composeTable is where the table of compose.md begins. Everything before it is written by hand.
const composeTable = "<!-- The table is made from manifest/compose by go test ./docs -run TestComposePage -update. -->\n"

// TestComposePage holds the table of compose.md against the one in package compose. -update rewrites it.
func TestComposePage(t *testing.T) {
	have, err := os.ReadFile("compose.md")
	if err != nil {
		t.Fatal(err)
	}
	text, _, ok := strings.Cut(string(have), composeTable)
	if !ok {
		t.Fatalf("compose.md has no line %q", composeTable)
	}
	want := text + composeTable + composeRows()
	if *update {
		if err := os.WriteFile("compose.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, string(have)); d != "" {
		t.Errorf("compose.md is not what compose.Keys says; run go test ./docs -run TestComposePage -update:\n%s", d)
	}
}

func composeRows() string {
	var b strings.Builder
	b.WriteString("\n| key | outcome | field of the project, or what to do instead |\n|---|---|---|\n")
	for _, r := range compose.Keys() {
		key := strings.Replace(r.Key, ".*", ".NAME", 1)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, r.Outcome, r.Text)
	}
	return b.String()
}
