package manifest_test

import (
	"os"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/manifest"
)

// FuzzParse: no panic, problems are inside the file, and accepted documents are valid and survive encoding and parsing.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "bad"} {
		for _, file := range files(f, folder) {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, false)
			f.Add(data, true)
		}
	}
	for name, text := range bombs() {
		if len(text) < 10_000 {
			f.Add([]byte(text), name == "")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, asJSON bool) {
		if len(data) > 64<<10 {
			return
		}
		file := "fuzz.yaml"
		if asJSON {
			file = "fuzz.json"
		}
		docs, problems := manifest.Parse(file, data, manifest.Limits{})
		for _, p := range problems {
			inside(t, string(data), p)
		}
		for _, d := range docs {
			if bad := validate.Object(d.Object); len(bad) > 0 {
				t.Fatalf("accepted what is invalid: %v", bad)
			}
			out, err := manifest.Encode(d.Object)
			if err != nil {
				t.Fatalf("encode: %v", err)
			}
			again, problems := manifest.Parse("again.yaml", out, manifest.Limits{Bytes: 16 << 20, Nodes: 4_000_000})
			if len(problems) > 0 || len(again) != 1 || !proto.Equal(d.Object, again[0].Object) {
				t.Fatalf("changed by writing it: %v\n%s", problems, out)
			}
		}
	})
}
