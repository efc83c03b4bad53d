package manifest_test

import (
	"os"
	"path/filepath"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
	"google.golang.org/protobuf/proto"
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
