package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestBackup: a backup of a running server is a data directory. A server that is restored from it knows what it knew
// then, agents and people come in as before, and no container notices.
func TestBackup(t *testing.T) {
	w := oneNode(t)
	kept, later := w.name("kept"), w.name("later")
	w.secret(kept, map[string]string{"greeting": "kept safe"})
	w.apply(w.web(kept, testimage.WebV1))
	w.running(kept)
	before := w.containers(w.engines[0], kept)

	file := filepath.Join(t.TempDir(), "cara.tar")
	if r := w.ctl("", "backup", "server", file); r.Code != 0 || !strings.Contains(r.Stderr, file+" written, ") {
		t.Fatalf("backup: %d %s", r.Code, r.Stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is %v, %v", info, err)
	}
	w.want(w.ctl("", "backup", "server", file), 1, "", "error: "+file+" exists: name a file that does not\n")
	testdocker.Images(t, w.engines[0], testimage.Busybox)
	w.apply(keeper(later, "one"))
	w.running(later)
	w.keeps(later, "precious")

	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Server.Kill())
	w.must(os.Rename(w.DataDir(), w.DataDir()+".lost"))
	w.must(os.Mkdir(w.DataDir(), 0o700))
	if out, err := exec.CommandContext(ctx, "tar", "-xf", file, "-C", w.DataDir()).CombinedOutput(); err != nil {
		t.Fatalf("unpack the backup: %v %s", err, out)
	}
	w.must(w.StartServer(ctx))
	w.ready("n1")
	w.running(kept)
	if after := w.containers(w.engines[0], kept); !maps.Equal(before, after) {
		t.Errorf("containers were %v and are %v", before, after)
	}
	if r := w.ctl("", "get", "projects", later); r.Code != 1 {
		t.Errorf("the project that came after the backup: %d %s", r.Code, r.Stdout)
	}
	w.apply(keeper(later, "one")) // at once: its node may not have said yet that it has the data
	w.running(later)
	w.kept(later, "precious")
	// Its keys came with it: a secret of then is given to a service of now.
	w.apply(project(kept, `
services:
- name: web
  image: `+testimage.WebV2+`
  env:
  - name: GREETING
    valueFrom: {secretKeyRef: {name: `+kept+`, key: greeting}}
ingress:
- name: web
  host: `+kept+`.test
  target: {service: web, port: 8080}`))
	w.running(kept)
	w.answers("n1", kept+".test", "/", 200, "kept safe")
}
