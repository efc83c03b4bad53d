package sources_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// growing is a source whose revisions differ by the files in added.
type growing struct {
	*memory
	added []string
}

func (m *growing) Opener() sources.Opener { return m }

func (m *growing) Open(*carav1.SourceSpec, map[string][]byte) (sources.Driver, error) { return m, nil }

func (m *growing) Diff(ctx context.Context, _, revision string) (*sources.Diff, error) {
	diff := &sources.Diff{Tree: &sources.Tree{Revision: revision}}
	m.set(func() {
		for _, path := range m.added {
			content := m.files[path]
			diff.Files = append(diff.Files, sources.File{Path: path, Hash: fmt.Sprintf("%x", content), Read: func(context.Context) ([]byte, error) {
				return []byte(content), ctx.Err()
			}})
		}
	})
	return diff, nil
}

// add publishes a revision with one more file.
func (m *growing) add(path, content string) {
	m.Write(path, content)
	m.set(func() { m.added = []string{path} })
	m.Publish()
}

// A difference that exceeds a limit of the source is left to a reading of the whole tree, which reports the limit.
func TestDifferenceHasTheLimitsOfTheWhole(t *testing.T) {
	m := &growing{memory: &memory{}}
	for i := range sources.MaxFiles - 1 {
		m.Write(fmt.Sprintf("%d.yaml", i), fmt.Sprintf("# %d\n", i))
	}
	w := sourcetest.New(t, m)
	w.Start()
	w.Create()
	w.Published(1)
	m.taken()
	for i := range 2 { // whole trees that are read for it
		m.add(fmt.Sprintf("app%d.yaml", i), sourcetest.Project(fmt.Sprintf("app%d", i), "web:1"))
		w.Hint()
		p := w.Published(i + 2)
		if _, trees := m.taken(); trees != i || int(p.Head.GetFiles()) != sources.MaxFiles+i {
			t.Errorf("of %d files, %d trees are read, want %d", p.Head.GetFiles(), trees, i)
		}
	}
}

func TestWhichSourcesReadDifferences(t *testing.T) {
	for name, tt := range map[string]struct {
		spec *carav1.SourceSpec
		want bool
	}{
		"a branch":      {&carav1.SourceSpec{Git: &carav1.GitSource{Ref: &carav1.GitRef{Branch: "main"}}}, true},
		"manifests":     {&carav1.SourceSpec{Format: api.FormatManifests, Git: &carav1.GitSource{}}, true},
		"Compose files": {&carav1.SourceSpec{Format: api.FormatCompose, Git: &carav1.GitSource{}}, false},
		"keys":          {&carav1.SourceSpec{Decryption: &carav1.Decryption{SecretRef: "age"}, Git: &carav1.GitSource{}}, false},
		"a commit":      {&carav1.SourceSpec{Git: &carav1.GitSource{Ref: &carav1.GitRef{Commit: "abc"}}}, false},
	} {
		if got := sources.ReadsDifferences(tt.spec); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}
