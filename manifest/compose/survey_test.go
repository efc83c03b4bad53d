package compose

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestVolumesStayApart checks that directories with the same last part do not become one volume, and that one directory does.
func TestVolumesStayApart(t *testing.T) {
	r := convert(t, "compose.yaml", `
services:
  web:
    image: a
    restart: always
    volumes:
      - ./app/plugins:/a
      - ./app/client/plugins:/b
      - ./more/app/plugins:/c
      - /var/lib/shop:/d
      - /var/log/shop:/e
      - plugins:/f
      - my_plugins:/g
      - my-plugins:/h
  other:
    image: a
    restart: always
    volumes: ["/var/log/shop:/e", "./app/plugins/:/a", "plugins:/f"]
volumes: {plugins: {}, my_plugins: {}, my-plugins: {}}
`)
	got := map[string]string{}
	for _, s := range r.Project.GetSpec().GetServices() {
		for _, m := range s.GetVolumeMounts() {
			got[s.GetName()+m.GetMountPath()] = m.GetName() + " " + volumeOf(r.Project, m.GetName()).GetHost()
		}
	}
	want := map[string]string{
		"web/a": "app-plugins ", "web/b": "client-plugins ", "web/c": "app-plugins-2 ", "web/d": "shop shop", "web/e": "log-shop log-shop",
		"web/f": "plugins ", "web/g": "my-plugins-2 ", "web/h": "my-plugins ",
		"other/a": "app-plugins ", "other/e": "log-shop log-shop", "other/f": "plugins ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string(nil), said(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestNameOfLength checks that a number of any length fits behind a long name.
func TestNameOfLength(t *testing.T) {
	v := volumeNames{of: map[string]string{}, taken: map[string]int{}}
	long := strings.Repeat("x", 70)
	seen := map[string]bool{}
	for i := range 1200 {
		from := "/" + itoa(i)
		name := v.name(from, long)
		if seen[name] || len(name) > 63 {
			t.Fatalf("%s has the name %s", from, name)
		}
		seen[name] = true
	}
}

// TestBeside checks which files a manifest refers to, and which become part of it: a source follows no links, and reads nothing
// outside of the directory of the manifest.
func TestBeside(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "deploy")
	for name, size := range map[string]int{"other.conf": 1, "deploy/a.conf": 1, "deploy/sub/b.conf": 1, "deploy/most.conf": maxContent, "deploy/big.conf": maxContent + 1} {
		file := filepath.Join(top, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, make([]byte, size), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"here": "deploy", "deploy/link.conf": "a.conf", "deploy/linked": "sub"} {
		if err := os.Symlink(target, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"a.conf": "./a.conf", "sub": "./sub/", "sub/b.conf": "./sub/b.conf", "most.conf": "./most.conf",
		"big.conf": "", "link.conf": "", "linked": "", "linked/b.conf": "", "../other.conf": "", "missing.conf": "",
	} {
		for _, manifestDir := range []string{dir, filepath.Join(top, "here")} {
			c := &converter{input: &input{manifestDir: manifestDir}}
			if got := c.beside(filepath.Join(manifestDir, name)); got != want {
				t.Errorf("%s is %q for a manifest in %s, want %q", name, got, manifestDir, want)
			}
		}
	}
	if got := (&converter{input: &input{}}).beside(filepath.Join(dir, "a.conf")); got != "" {
		t.Errorf("a.conf is %q without a directory of the manifest", got)
	}
}

// TestNothingWritten checks keys that change nothing, or that Compose adds itself: they are no loss.
func TestNothingWritten(t *testing.T) {
	r := convert(t, "compose.yaml", `
services:
  a:
    image: a
    restart: always
    healthcheck: {disable: false}
    links: [b]
  b:
    image: b
    restart: always
    healthcheck: {retries: 3}
    depends_on: {c: {condition: service_started, restart: true}}
  c: {image: c, restart: always}
`)
	want := []string{"compose.yaml:11 loss services.b.healthcheck", "compose.yaml:12 loss services.b.depends_on.c.restart"}
	if diff := cmp.Diff(want, said(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	a := r.Project.GetSpec().GetServices()[0]
	if a.GetHealthcheck() != nil || len(a.GetDependsOn()) != 1 {
		t.Errorf("service a is %v", a)
	}
}

// TestProfilesOfTheEnvironment checks that COMPOSE_PROFILES in .env enables profiles, and that a service without an enabled
// profile is named.
func TestProfilesOfTheEnvironment(t *testing.T) {
	r := convert(t, "compose.yaml", `
services:
  a: {image: a, restart: always, profiles: [prod]}
  b: {image: b, restart: always, profiles: [debug, dev]}
`, ".env", "COMPOSE_PROFILES=prod\n")
	if s := r.Project.GetSpec().GetServices(); len(s) != 1 || s[0].GetName() != "a" {
		t.Errorf("the services are %v", s)
	}
	if !strings.Contains(report(r), "compose.yaml:4:34: note: services.b.profiles: the service is left out, because none of its profiles is enabled: debug, dev\n") {
		t.Errorf("the findings are %s", report(r))
	}
}

// TestFirstVersion checks that a file without services: says what to do.
func TestFirstVersion(t *testing.T) {
	name := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(name, []byte("web:\n  image: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Convert(t.Context(), Options{Files: []string{name}}); err == nil || !strings.Contains(err.Error(), "write services: above them") {
		t.Errorf("the error is %v", err)
	}
}
