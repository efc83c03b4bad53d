package compose

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/manifest"
)

var update = flag.Bool("update", false, "write the wanted files anew")

// TestFixtures converts each directory of fixtures/compose. want.yaml has the project, want.txt the findings. Values of the
// Secret are in neither.
func TestFixtures(t *testing.T) {
	dirs, err := filepath.Glob("../../fixtures/compose/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no fixtures", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r, err := Convert(t.Context(), Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			text, err := manifest.Encode(r.Project)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, filepath.Join(dir, "want.yaml"), string(text))
			compare(t, filepath.Join(dir, "want.txt"), report(r))
			if r.Worst() < Refusal {
				parses(t, r, text)
			}
		})
	}
}

func report(r *Result) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s:%d:%d: %s: %s: %s\n", filepath.Base(f.File), f.Line, f.Column, f.Severity, f.Key, f.Message)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Secret.GetStringData())) {
		fmt.Fprintf(&b, "secret %s/%s\n", r.Secret.GetMetadata().GetName(), key)
	}
	return b.String()
}

// parses checks that the project is a manifest that the server accepts, and that no value of the Secret is in it.
func parses(t *testing.T, r *Result, text []byte) {
	t.Helper()
	docs, problems := manifest.Parse("want.yaml", text, manifest.Limits{})
	if len(problems) > 0 || len(docs) != 1 || !proto.Equal(docs[0].Object, r.Project) {
		t.Errorf("the project does not come back from its manifest: %v", problems)
	}
	for key, value := range r.Secret.GetStringData() {
		if strings.Contains(string(text)+report(r), strings.TrimSpace(value)) {
			t.Errorf("the value of %s is in the project or in a finding", key)
		}
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestEveryKey checks that each key of the Compose specification has a row of its own, or is below a row that speaks for
// everything below it.
func TestEveryKey(t *testing.T) {
	rows := map[string]Row{}
	for _, row := range Keys() {
		if _, twice := rows[row.Key]; twice || row.Text == "" {
			t.Errorf("row %q is there twice, or has no text", row.Key)
		}
		rows[row.Key] = row
	}
	known := map[string]bool{}
	for _, path := range schema.AttributePaths() {
		known[string(path)] = true
		if rest, ok := strings.CutPrefix(string(path), "services.*."); ok {
			path := "services.*." + strings.SplitN(rest, ".", 2)[0]
			if _, ok := rows[path]; !ok {
				t.Errorf("no row for %s", path)
			}
		} else if _, ok := rowOf(rows, strings.Split(string(path), ".")); !ok {
			t.Errorf("no row for %s", path)
		}
	}
	for key := range rows {
		if !known[key] {
			t.Errorf("row %s is about a key that the specification does not have", key)
		}
	}
}
