package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// haproxy runs HAProxy until the test ends.
func haproxy(t *testing.T, config string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := testcluster.Start(filepath.Join(dir, "haproxy.log"), os.Environ(), testneed.Program(t, "haproxy", "haproxy"), "-db", "-f", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("haproxy: %s", p.Tail(100))
		}
	})
}
