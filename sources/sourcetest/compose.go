package sourcetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

func composeFiles(t *testing.T, w *Harness) {
	s := w.Subject
	s.Write("apps/shop/compose.yaml", "services:\n  web:\n    image: web:${TAG}\n    restart: always\n    env_file: web.env\n    volumes: ['./web.conf:/etc/web.conf:ro']\n")
	s.Write("apps/shop/web.env", "A=1\n")
	s.Write("apps/shop/web.conf", "conf")
	s.Write("apps/blog/docker-compose.yml", "name: weblog\nservices:\n  web:\n    image: blog\n    restart: always\n    environment: {DOT: '${DOT}'}\n")
	s.Write("apps/blog/.env", "DOT=one\n")
	s.Write("apps/bad/compose.yml", "services:\n  web:\n    image: bad\n    restart: always\n    privileged: true\n")
	s.Write("apps/other.yaml", Project("other", "web:1")) // not read
	s.Publish()
	w.Create(func(spec *carav1.SourceSpec) {
		spec.Path, spec.Format, spec.Vars = "apps", api.FormatCompose, []*carav1.SourceVar{{Name: "TAG", Value: "2"}}
	})
	p := w.Published(1)
	w.want(t, "shop apps/shop/compose.yaml:1", "weblog apps/blog/docker-compose.yml:1")
	if e := p.Head.FileErrors; len(e) != 1 || e[0].File != "apps/bad/compose.yml" || e[0].Line != 5 || e[0].Column != 5 || !strings.Contains(e[0].Message, "has no equivalent") {
		t.Errorf("errors %v", e)
	}
	shop := p.Upserts[0].Project
	files, _ := w.Server.stored(shop)
	if svc := shop.Spec.Services[0]; svc.Image != "web:2" || svc.Env[0].Name != "A" {
		t.Errorf("service %v", svc)
	}
	if diff := cmp.Diff([]string{`/etc/web.conf 0444: "conf" true`}, files); diff != "" {
		t.Error(diff)
	}
	w.unwritten(t)

	for i, c := range []struct{ file, content, changes string }{
		{"apps/shop/web.env", "A=2\n", "shop"},
		{"apps/blog/.env", "DOT=two\n", "weblog"},
		{"apps/shop/web.conf", "other", "shop"},
		{"apps/shop/compose.override.yaml", "services: {web: {init: true}}\n", "shop"},
	} {
		s.Write(c.file, c.content)
		if p := w.push(i + 2); len(p.Upserts) != 1 || p.Upserts[0].Project.Metadata.Name != c.changes || len(p.Absent) != 0 {
			t.Errorf("after a change of %s: published %v, want only %s", c.file, p, c.changes)
		}
	}
	w.unwritten(t)
	w.Change(func(src *carav1.Source) { src.Spec.Vars[0].Value = "3" })
	if p := w.Published(6); len(p.Upserts) != 1 || p.Upserts[0].Project.Spec.Services[0].Image != "web:3" {
		t.Errorf("after a change of a variable: published %v", p)
	}
	// A Compose file over the limit is an error, and not a file of another tool.
	s.Write("apps/big/compose.yaml", "services: {web: {image: a}}\n#"+strings.Repeat(" ", 1<<20))
	if e := fmt.Sprint(w.push(7).Head.FileErrors); !strings.Contains(e, "apps/big/compose.yaml") || !strings.Contains(e, "MiB") {
		t.Errorf("errors %v", e)
	}
	s.Remove("apps/big/compose.yaml")
	w.push(8)
	// What is wrong with files that only the source can see is reported at the key of the Compose file that names them.
	for i := range 65 {
		s.Write(fmt.Sprintf("apps/shop/many/%d", i), "x")
	}
	s.Write("apps/shop/compose.yaml", "services:\n  web:\n    image: a\n    restart: always\n    volumes:\n    - ./many:/many:ro\n")
	if e := w.push(9).Head.FileErrors; len(e) != 2 || !strings.HasPrefix(manifest.Format(e[1]), "apps/shop/compose.yaml:6:7: services.web.volumes.0: apps/shop/many has more than 64 files") {
		t.Errorf("errors %v", e)
	}
	s.Write("apps/shop/compose.yaml", "services: {web: {image: a, env_file: ../../../etc/passwd}}\n")
	w.push(10)
	if claims := fmt.Sprint(w.Claims()); !strings.Contains(claims, "shop apps/shop/compose.yaml:1 held: its file is broken: apps/shop/compose.yaml:1:") || !strings.Contains(claims, "leaves the source") {
		t.Errorf("claims %s", claims)
	}
}
