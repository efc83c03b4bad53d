package compose

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestIsSecret(t *testing.T) {
	for _, test := range []struct {
		name, value string
		want        bool
	}{
		{"DB_PASSWORD", "x7", true},
		{"password", "x7", true},
		{"MYSQL_PASS", "x7", true},
		{"SECRET_KEY_BASE", "x7", true},
		{"AWS_SECRET_ACCESS_KEY", "x7", true},
		{"API_KEY", "x7", true},
		{"GITHUB_TOKEN", "x7", true},
		{"DATABASE_URL", "postgres://app:pw@db/app", true},
		{"DATABASE_URL", "postgres://app@db/app", false},
		{"DATABASE_URL", "postgres://db:5432/app", false},
		{"ALLOW_EMPTY_PASSWORD", "yes", false},
		{"RANDOM_ROOT_PASSWORD", "1", false},
		{"DB_PASSWORD", "", false},
		{"DB_PASSWORD_FILE", "/run/secrets/db", false},
		{"MAX_TOKENS", "4096", false},
		{"COMPASS", "north", false},
	} {
		if got := isSecret(test.name, test.value); got != test.want {
			t.Errorf("isSecret(%s, %s) = %v, want %v", test.name, test.value, got, test.want)
		}
	}
}

func TestQuantities(t *testing.T) {
	for _, test := range []struct {
		got, want string
	}{
		{cpu(0), ""},
		{cpu(2), "2"},
		{cpu(0.5), "500m"},
		{cpu(1.25), "1250m"},
		{cpu(0.001), "1m"},
		{memory(0), ""},
		{memory(1000), "1000"},
		{memory(1024), "1Ki"},
		{memory(256 << 20), "256Mi"},
		{memory(3 << 30), "3Gi"},
		{memory(4 << 40), "4096Gi"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestDNSLabel(t *testing.T) {
	for in, want := range map[string]string{
		"web": "web", "Web_App": "web-app", "a.b": "a-b", "-x-": "x", "_": "", "ünïcode": "n-code", strings.Repeat("x", 70): strings.Repeat("x", 63),
	} {
		if got := dnsLabel(in); got != want {
			t.Errorf("dnsLabel(%q) = %q, want %q", in, got, want)
		}
	}
}

// convert converts files, by name and content. The first is the Compose file.
func convert(t *testing.T, files ...string) *Result {
	t.Helper()
	dir := t.TempDir()
	var compose []string
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o600)
		if filepath.Ext(name) == ".sh" {
			mode = 0o700
		}
		if err := os.WriteFile(name, []byte(files[i+1]), mode); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(files[i], "compose") {
			compose = append(compose, name)
		}
	}
	r, err := Convert(t.Context(), Options{Files: compose, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTimeZone checks that the time zone of the machine is no loss for a service that has its own.
func TestTimeZone(t *testing.T) {
	r := convert(t, "compose.yaml", `
services:
  a:
    image: a
    environment: [TZ=Europe/Berlin]
    volumes: ["/etc/localtime:/etc/localtime:ro"]
  b:
    image: b
    environment: [TZ]
    volumes: ["/etc/localtime:/etc/localtime:ro"]
  c:
    image: c
    environment: ["TZ="]
    volumes: ["/etc/localtime:/etc/localtime:ro"]
`)
	want := []string{"compose.yaml:10 loss services.b.volumes.0", "compose.yaml:14 loss services.c.volumes.0"}
	if diff := cmp.Diff(want, said(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// said returns the findings, shortened, without notes.
func said(r *Result) []string {
	var out []string
	for _, f := range r.Findings {
		if f.Severity > Note {
			out = append(out, fmt.Sprintf("%s:%d %s %s", filepath.Base(f.File), f.Line, f.Severity, f.Key))
		}
	}
	return out
}

// TestPositions checks that a finding names the file that decided, also through anchors, merges and names with dots.
func TestPositions(t *testing.T) {
	r := convert(t, "compose.yaml", `
x-base: &base
  restart: always
  hostname: here
services:
  my.web:
    <<: *base
    image: a
    privileged: true
`, "compose.prod.yaml", `
services:
  my.web:
    devices: ["/dev/x"]
    ports:
      - "53:53/udp"
`)
	want := []string{
		"compose.prod.yaml:4 refused services.my.web.devices",
		"compose.yaml:4 loss services.my.web.hostname",
		"compose.yaml:9 refused services.my.web.privileged",
	}
	if diff := cmp.Diff(want, said(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestPorts(t *testing.T) {
	const head = "services:\n  web:\n    image: a\n    restart: always\n"
	for name, test := range map[string]struct {
		yaml  string
		doors string
		said  []string
	}{
		"http":            {`    ports: ["80"]`, "shop=web:80", nil},
		"two":             {`    ports: ["80", "9000:9000"]`, "shop=web:80 web-shop=web:9000", nil},
		"the same twice":  {`    ports: ["80:80", "8080:80"]`, "shop=web:80", nil},
		"https beside it": {`    ports: ["80:80", "443:443"]`, "shop=web:80", nil},
		"https alone":     {`    ports: ["443:443"]`, ":443=web:443 web-443", nil},
		"https elsewhere": {`    ports: ["9000:9000", "9443:9443"]`, "shop=web:9000", nil},
		"http/3":          {`    ports: ["443:443", "443:443/udp"]`, ":443=web:443 web-443 UDP:443=web:443 web-443-udp", nil},
		"http/3 too":      {`    ports: ["80:80", "443:443", "443:443/udp"]`, "shop=web:80 UDP:443=web:443 web-443-udp", nil},
		"syslog":          {`    ports: ["1601:1601", "1601:1601/udp", "80:80"]`, "shop=web:80 :1601=web:1601 web-1601 UDP:1601=web:1601 web-1601-udp", nil},
		"database":        {`    ports: ["15432:5432"]`, ":15432=web:5432 web-15432", nil},
		"udp":             {`    ports: ["53:53/udp", "53:53"]`, "UDP:53=web:53 web-53-udp :53=web:53 web-53", nil},
		"a range":         {`    ports: ["22-23:22-23"]`, "shop=web:23 :22=web:22 web-22", nil},
		"any port":        {`    ports: ["5432", "0:22"]`, "", []string{"compose.yaml:5 loss services.web.ports.1"}},
		"one of a range":  {"    ports: [{target: 22, published: '2200-2300'}]", "", []string{"compose.yaml:5 loss services.web.ports.0"}},
		"published twice": {`    ports: ["22:22", "22:2222"]`, ":22=web:22 web-22", []string{"compose.yaml:5 loss services.web.ports.1"}},
		"loopback":        {`    ports: ["127.0.0.1:80:80"]`, "", nil},
		"loopback IPv6":   {`    ports: ["[::1]:80:80"]`, "", nil},
		"every address":   {`    ports: ["0.0.0.0:80:80"]`, "shop=web:80", nil},
		"traefik":         {"    labels: {traefik.http.routers.a.rule: 'Host(`a.example.com`, `b.example.com`)'}\n    expose: [\"3000\"]", "a.example.com=web:3000 b.example.com=web:3000", nil},
		"traefik path": {
			"    labels: {traefik.http.routers.a.rule: 'Host(`a.example.com`) && PathPrefix(`/x`)', traefik.http.services.a.loadbalancer.server.port: '81'}", "a.example.com=web:81",
			[]string{"compose.yaml:5 loss services.web.labels.traefik.http.routers.a.rule"},
		},
		"traefik without a port": {"    labels: {traefik.http.routers.a.rule: 'Host(`a.example.com`)'}", "", []string{"compose.yaml:5 loss services.web.labels"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := convert(t, "compose.yaml", head+test.yaml+"\n")
			var doors []string
			for _, in := range r.Project.GetSpec().GetIngress() {
				doors = append(doors, fmt.Sprintf("%s=%s:%d", in.GetHost(), in.GetTarget().GetService(), in.GetTarget().GetPort()))
			}
			for _, p := range r.Project.GetSpec().GetPorts() {
				doors = append(doors, fmt.Sprintf("%s:%d=%s:%d %s", p.GetProtocol(), p.GetPort(), p.GetTarget().GetService(), p.GetTarget().GetPort(), p.GetName()))
			}
			if got := strings.Join(doors, " "); got != test.doors {
				t.Errorf("ingress %q, want %q", got, test.doors)
			}
			if diff := cmp.Diff(test.said, said(r)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	r := convert(t, "compose.yaml", `
services:
  web:
    image: a
    restart: always
    volumes:
      - ./nginx.conf:/etc/nginx.conf
      - ./conf.d:/etc/conf.d:ro
      - ./data:/data
      - ./new:/new
      - shared:/shared:ro
      - ../outside:/outside
      - ./binary:/binary
      - ./run.sh:/run.sh:ro
      - {type: tmpfs, target: /tmp, tmpfs: {size: 1048576}}
volumes: {shared: {external: true, name: shared}}
`, "nginx.conf", "a", "conf.d/one", "1", "conf.d/sub/two", "2", "data/keep", "x", "binary", "\x00\x01", "run.sh", "#!/bin/sh\n")
	web := r.Project.GetSpec().GetServices()[0]
	var got []string
	for _, f := range web.GetFiles() {
		got = append(got, strings.TrimSpace(f.GetPath()+"="+f.GetContent()+f.GetMode()))
	}
	for _, m := range web.GetVolumeMounts() {
		v := volumeOf(r.Project, m.GetName())
		got = append(got, fmt.Sprintf("%s:%s %s ro=%v", m.GetName(), m.GetMountPath(), v.GetType(), m.GetReadOnly()))
	}
	got = append(got, web.GetTmpfs()...)
	want := []string{
		"/etc/nginx.conf=a", "/etc/conf.d/one=1", "/etc/conf.d/sub/two=2", "/run.sh=#!/bin/sh\n0555",
		"data:/data Managed ro=false", "new:/new Managed ro=false", "shared:/shared Managed ro=true", "outside:/outside Host ro=false", "/tmp:size=1048576",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"compose.yaml:9 loss services.web.volumes.2", "compose.yaml:13 refused services.web.volumes.6", "compose.yaml:16 loss volumes.shared.external",
	}, said(r)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func volumeOf(p *carav1.Project, name string) *carav1.ProjectVolume {
	for _, v := range p.GetSpec().GetVolumes() {
		if v.GetName() == name {
			return v
		}
	}
	return nil
}

// TestSecretsStayApart checks that different values of one name do not overwrite each other, and equal ones are there once.
func TestSecretsStayApart(t *testing.T) {
	r := convert(t, "compose.yaml", `
services:
  a: {image: a, restart: always, environment: {PASSWORD: one}}
  b: {image: a, restart: always, environment: {PASSWORD: two}}
  c: {image: a, restart: always, environment: {PASSWORD: one}}
  d: {image: a, restart: always, secrets: [blob]}
secrets: {blob: {file: ./blob}}
`, "blob", "\xff\x00")
	if diff := cmp.Diff(map[string]string{"PASSWORD": "one", "b.PASSWORD": "two"}, r.Secret.GetStringData()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]byte{"blob": []byte("\xff\x00")}, r.Secret.GetData()); diff != "" {
		t.Errorf("bytes (-want +got):\n%s", diff)
	}
	for i, want := range []string{"PASSWORD", "b.PASSWORD", "PASSWORD"} {
		if got := r.Project.GetSpec().GetServices()[i].GetEnv()[0].GetValueFrom().GetSecretKeyRef().GetKey(); got != want {
			t.Errorf("service %d has key %q, want %q", i, got, want)
		}
	}
}

func TestRestart(t *testing.T) {
	for policy, want := range map[string]string{"": "", "always": "", "unless-stopped": "", `"no"`: "Never", "on-failure": "OnFailure", "on-failure:3": "OnFailure"} {
		line := ", restart: " + policy
		if policy == "" {
			line = ""
		}
		r := convert(t, "compose.yaml", "services:\n  a: {image: a"+line+"}\n")
		if got := r.Project.GetSpec().GetServices()[0].GetRestartPolicy(); got != want {
			t.Errorf("restart %s becomes %q, want %q", policy, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(name, []byte("# "+strings.Repeat("x", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Convert(t.Context(), Options{Files: []string{name}}); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("a large file: %v", err)
	}
	if got := memory(types.UnitBytes(-1)); got != "" {
		t.Errorf("no limit becomes %q", got)
	}
}
