package dir_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/dir"
	"github.com/caravanserai/cara/sources/sourcetest"
)

func TestMain(m *testing.M) {
	testneed.AtOnce(8) // they mostly wait for the next look at a source
	goleak.VerifyTestMain(m)
}

// folder is a directory as a subject.
type folder struct {
	tb   testing.TB
	root string
}

func newFolder(tb testing.TB) *folder {
	f := &folder{tb, filepath.Join(tb.TempDir(), "manifests")}
	f.must(os.Mkdir(f.root, 0o755))
	return f
}

func (f *folder) must(err error) {
	f.tb.Helper()
	if err != nil {
		f.tb.Fatal(err)
	}
}

func (f *folder) Spec() *carav1.SourceSpec {
	return &carav1.SourceSpec{Dir: &carav1.DirSource{Path: f.root}}
}
func (f *folder) Secret() map[string][]byte { return nil }
func (f *folder) Opener() sources.Opener    { return dir.New(dir.Config{}) }
func (f *folder) Publish()                  {}
func (f *folder) Break()                    { f.must(os.Rename(f.root, f.root+".away")) }
func (f *folder) Mend()                     { f.must(os.Rename(f.root+".away", f.root)) }

func (f *folder) Write(path, content string) {
	f.tb.Helper()
	path = filepath.Join(f.root, path)
	f.must(os.MkdirAll(filepath.Dir(path), 0o755))
	if at, err := os.Readlink(path); err == nil { // the file is what the link names
		path = filepath.Join(filepath.Dir(path), at)
	}
	whole := filepath.Join(f.root, ".whole") // a pass that runs meanwhile must not find half of it
	f.must(os.WriteFile(whole, []byte(content), 0o644))
	err := os.Rename(whole, path)
	if errors.Is(err, syscall.EXDEV) { // the root is a file system of its own
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	f.must(err)
}

func (f *folder) Remove(path string) { f.must(os.Remove(filepath.Join(f.root, path))) }

func (f *folder) Symlink(path, target string) {
	f.must(os.Symlink(target, filepath.Join(f.root, path)))
}

func TestContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Subject { return newFolder(t) })
}
