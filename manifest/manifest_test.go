package manifest_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

func parseFile(t *testing.T, file string) ([]manifest.Document, []*carav1.FileProblem) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Parse(filepath.Base(file), data, manifest.Limits{})
}

func objects(docs []manifest.Document) []proto.Message {
	var out []proto.Message
	for _, d := range docs {
		out = append(out, d.Object)
	}
	return out
}

func project(name string) string {
	return "apiVersion: caravanserai/v1\nkind: Project\nmetadata:\n  name: " + name + "\nspec:\n  services:\n    - {name: web, image: nginx}\n"
}

func TestCheckNamesBothPlaces(t *testing.T) {
	a, problems := manifest.Parse("a.yaml", []byte(project("web")+"---\n"+project("other")), manifest.Limits{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	b, problems := manifest.Parse("b/c.yaml", []byte("# moved\n"+project("web")), manifest.Limits{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	unique, problems := manifest.Check(append(a, b...))
	if len(unique) != 1 || unique[0].Name != "other" {
		t.Errorf("unique: %v", unique)
	}
	var got []string
	for _, p := range problems {
		got = append(got, manifest.Format(p))
	}
	want := []string{
		`a.yaml:4:9: metadata.name: project "web" is declared 2 times, also at b/c.yaml:5; keep one of them, until then none is applied`,
		`b/c.yaml:5:9: metadata.name: project "web" is declared 2 times, also at a.yaml:4; keep one of them, until then none is applied`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPosition(t *testing.T) {
	docs, problems := parseFile(t, "../fixtures/manifests/good/every-field.yaml")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	cases := map[string][2]int{
		"":                      {1, 1},
		"metadata.name":         {4, 9},
		"metadata.labels[tier]": {5, 48},
		"metadata.labels[app.kubernetes.io/name]": {5, 36},
		"spec.services[0].image":                  {10, 14},
		"spec.services[0].env[1].name":            {14, 17},
		"spec.services[0].env[9].name":            {11, 7},
		"spec.services[0].nothing.here":           {9, 7},
		"spec.services":                           {8, 3},
		"nonsense[":                               {1, 1},
	}
	for field, want := range cases {
		if line, column := docs[0].Position(field); line != want[0] || column != want[1] {
			t.Errorf("%s: got %d:%d, want %d:%d", field, line, column, want[0], want[1])
		}
	}
}

func TestStringsSurvive(t *testing.T) {
	values := []string{
		"", " ", "\n", "\n\n", "a\n", "a\n\n", "\na", " a\nb", "a \nb", "a\tb", "\t", "a\r\nb", "~", "yes", "0x10", "1e3", "1.5", "null",
		"2026-01-31", "{a", "[", "# no comment", "a: b", "- a", "? a", "'", "\"", "\\", "|", ">", "%x", "@", "`", "!tag", "&a", "*a", "<<",
		"---", "--- a", "...", "a\n---\nb", "é😀", "\u0085", "\u2028", "\ufeff", "a #b", "a:", ":", "-", "?", "=", "y", "\x7f", "\x01",
		"  \n  a\n b", "a\n  \nb", "a\n\n\nb\n\n\n", strings.Repeat("word ", 200),
	}
	p := &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: "strings"},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: "b"}}},
	}
	for i, v := range values {
		p.Spec.Services[0].Env = append(p.Spec.Services[0].Env, &carav1.EnvVar{Name: "V" + strconv.Itoa(i), Value: v})
	}
	out, err := manifest.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	docs, problems := manifest.Parse("strings.yaml", out, manifest.Limits{})
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, out)
	}
	if diff := cmp.Diff(p, docs[0].Object, protocmp.Transform()); diff != "" {
		t.Errorf("%s\n%s", diff, out)
	}
}

func TestStatusOnlyWhenAsked(t *testing.T) {
	p := &carav1.Project{ApiVersion: api.APIVersion, Kind: api.KindProject, Status: &carav1.ProjectStatus{Phase: api.PhaseRunning}}
	without, err := manifest.Encode(p)
	if err != nil || strings.Contains(string(without), "status") {
		t.Errorf("%v\n%s", err, without)
	}
	with, err := manifest.EncodeWithStatus(p)
	if err != nil || !strings.Contains(string(with), "status:\n  phase: Running") {
		t.Errorf("%v\n%s", err, with)
	}
	if none, err := manifest.Encode(); err != nil || len(none) != 0 {
		t.Errorf("%v %q", err, none)
	}
}

func BenchmarkThousandDocuments(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		text.WriteString("---\n" + project("p"+strconv.Itoa(i)))
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if docs, problems := manifest.Parse("many.yaml", data, manifest.Limits{}); len(docs) != 1000 || len(problems) > 0 {
			b.Fatal(len(docs), problems)
		}
	}
}

func BenchmarkOneDocument(b *testing.B) {
	data, err := os.ReadFile("../fixtures/manifests/good/wordpress.yaml")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		manifest.Parse("wordpress.yaml", data, manifest.Limits{})
	}
}

func BenchmarkBombs(b *testing.B) {
	for name, text := range bombs() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				manifest.Parse("bomb.yaml", []byte(text), manifest.Limits{})
			}
		})
	}
}
