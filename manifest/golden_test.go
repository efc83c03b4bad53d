package manifest_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/caravanserai/cara/manifest"
)

var update = flag.Bool("update", false, "write the golden files anew")

const fixtures = "../fixtures/manifests"

// files are the manifests of one folder, without their golden files.
func files(tb testing.TB, folder string) []string {
	tb.Helper()
	all, err := filepath.Glob(filepath.Join(fixtures, folder, "*"))
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, f := range all {
		if manifest.IsManifest(f) {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		tb.Fatalf("no fixtures in %s", folder)
	}
	return out
}

func golden(t *testing.T, file, got string) {
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
		t.Errorf("%s (-want +got), rewrite with -update:\n%s", file, diff)
	}
}

func TestGood(t *testing.T) {
	for _, file := range files(t, "good") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			docs, problems := parseFile(t, file)
			for _, p := range problems {
				t.Error(manifest.Format(p))
			}
			var warnings strings.Builder
			for i, d := range docs {
				out, err := manifest.Encode(d.Object)
				if err != nil {
					t.Fatal(err)
				}
				again, problems := manifest.Parse("again.yaml", out, manifest.Limits{})
				if len(problems) > 0 || len(again) != 1 {
					t.Fatalf("%s does not parse again: %v\n%s", d.Name, problems, out)
				}
				if diff := cmp.Diff(d.Object, again[0].Object, protocmp.Transform()); diff != "" {
					t.Errorf("document %d changed by writing it:\n%s", i, diff)
				}
				for _, w := range d.Warnings {
					warnings.WriteString("# warning: " + manifest.Format(w) + "\n")
				}
			}
			out, err := manifest.Encode(objects(docs)...)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file+".golden", warnings.String()+string(out))
		})
	}
}

func TestBad(t *testing.T) {
	for _, file := range files(t, "bad") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			docs, problems := parseFile(t, file)
			if len(problems) == 0 {
				t.Error("no problem found")
			}
			var got strings.Builder
			for _, d := range docs {
				got.WriteString("# good: " + d.Kind + " " + d.Name + "\n")
			}
			for _, p := range problems {
				got.WriteString(manifest.Format(p) + "\n")
			}
			golden(t, file+".golden", got.String())
		})
	}
}
