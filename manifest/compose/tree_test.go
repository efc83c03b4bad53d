package compose

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// texts is a tree of files.
type texts map[string]string

func (m texts) Look(_ context.Context, name string) (folder bool, files int, err error) {
	if _, ok := m[name]; ok {
		return false, 1, nil
	}
	for file := range m {
		if strings.HasPrefix(file, name+"/") || name == "" {
			files++
		}
	}
	if files == 0 {
		return false, 0, fs.ErrNotExist
	}
	return true, files, nil
}

func (m texts) Read(_ context.Context, name string) ([]byte, error) {
	if data, ok := m[name]; ok {
		return []byte(data), nil
	}
	return nil, fs.ErrNotExist
}

func convertTree(t *testing.T, o TreeOptions) *Result {
	t.Helper()
	if o.Dir == "" {
		o.Dir = "apps/shop"
	}
	if o.Files == nil {
		o.Files = []string{"compose.yaml"}
	}
	o.Temp = t.TempDir()
	r, err := ConvertTree(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(o.Temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return r
}

func all(r *Result) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s:%d:%d: %s: %s: %s\n", f.File, f.Line, f.Column, f.Severity, f.Key, f.Message)
	}
	return b.String()
}

func TestTree(t *testing.T) {
	r := convertTree(t, TreeOptions{
		Files: []string{"compose.yaml", "compose.override.yaml"},
		Vars: []*carav1.SourceVar{
			{Name: "TAG", Value: "1.27"}, {Name: "PW", SecretKeyRef: &carav1.SecretKeyRef{Name: "shop", Key: "password"}},
		},
		Tree: texts{
			"apps/shop/compose.yaml": `
include: [../common/db.yaml]
services:
  web:
    extends: {file: ../common/base.yaml, service: base}
    image: nginx:${TAG}
    env_file: [web.env]
    environment:
      URL: postgres://u:${PW}@db/$$x
      PASSWORD: ${PW}
      API_TOKEN: from-the-repository
      LEVEL: ${LEVEL:-info}
      DOT: ${DOT}
    ports: ["8080:80", "5353:53/udp"]
    volumes: [./nginx.conf:/etc/nginx/nginx.conf:ro, ./conf.d:/etc/nginx/conf.d:ro, ./data:/data, ../common/x.txt:/x.txt:ro]
    configs: [{source: app, target: /etc/app}, {source: inline, target: /etc/inline}]
    secrets: [pw]
  debug:
    image: busybox
    profiles: [debug]
configs: {app: {file: ./app.conf}, inline: {content: "pw=${PW}"}}
secrets: {pw: {environment: PW}}
`,
			"apps/shop/compose.override.yaml": "services: {web: {environment: {EXTRA: over}}}\n",
			"apps/shop/.env":                  "DOT=dot\nTAG=old\n",
			"apps/shop/web.env":               "FROM_FILE=yes\n",
			"apps/shop/nginx.conf":            "x", "apps/shop/conf.d/a": "a", "apps/shop/app.conf": "app",
			"apps/common/base.yaml": "services: {base: {image: none, restart: always, init: true}}\n",
			"apps/common/db.yaml":   "services: {db: {image: 'postgres:17', restart: always, volumes: ['pg:/var/lib/postgresql/data']}}\nvolumes: {pg: {}}\n",
			"apps/common/x.txt":     "x",
		},
	})
	if r.Worst() > Warning {
		t.Errorf("findings:\n%s", all(r))
	}
	text, err := manifest.Encode(r.Project)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/tree.yaml", string(text)+"# findings\n# "+strings.ReplaceAll(all(r), "\n", "\n# ")+"\n")
}

// TestTreeReadsNothingElse: what a file names outside of the source is refused before the library sees it.
func TestTreeReadsNothingElse(t *testing.T) {
	planted := filepath.Join(t.TempDir(), "planted")
	stack := planted + ".yaml"
	for file, content := range map[string]string{planted: "PLANTED=planted-value\n", stack: "services: {planted: {image: planted-value, restart: always}}\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	up := "../../../../../../../../../../../../../.." + planted
	for name, yaml := range map[string]string{
		"include":                 "include: [" + stack + "]\n",
		"include with dots":       "include: [" + up + ".yaml]\n",
		"include of a map":        "include: [{path: [" + stack + "]}]\n",
		"include with variables":  "include: ['${X:-" + stack + "}']\n",
		"variables of an include": "include: [{path: other.yaml, env_file: " + planted + "}]\n",
		"directory of an include": "include: [{path: other.yaml, project_directory: " + filepath.Dir(planted) + "}]\n",
		"include in an anchor":    "x-a: &a {include: [" + stack + "]}\n<<: *a\n",
		"include by an alias":     "x-a: &a [" + stack + "]\ninclude: *a\n",
		"a key by an alias":       "x-k: &k include\n*k : [" + stack + "]\n",
		"a binary key":            "!!binary aW5jbHVkZQ==: [" + stack + "]\n",
		"a binary path":           "include: [!!binary " + base64.StdEncoding.EncodeToString([]byte(stack)) + "]\n",
		"remote":                  "include: ['https://github.com/a/b.git']\n",
		"remote by git":           "include: ['git@github.com:a/b.git']\n",
		"extends":                 "services: {a: {image: a, extends: {file: " + stack + ", service: planted}}}\n",
		"extends merged":          "x-e: &e {file: " + stack + "}\nservices: {a: {image: a, extends: {<<: *e, service: planted}}}\n",
		"env_file":                "services: {a: {image: a, env_file: " + planted + "}}\n",
		"env_file in a map":       "services: {a: {image: a, env_file: [{path: " + up + ", required: false}]}}\n",
		"env_file in the home":    "services: {a: {image: a, env_file: '~/planted'}}\n",
		"env_file of an included": "include: [evil.yaml]\n",
		"label_file":              "services: {a: {image: a, label_file: " + planted + "}}\n",
		"a config":                "services: {a: {image: a, configs: [c]}}\nconfigs: {c: {file: " + planted + "}}\n",
		"a config with dots":      "services: {a: {image: a, configs: [c]}}\nconfigs: {c: {file: " + up + "}}\n",
		"a secret":                "services: {a: {image: a, secrets: [c]}}\nsecrets: {c: {file: " + planted + "}}\n",
		"a configuration by .env": "services: {a: {image: a}}\n# env\n",
		"a value of the server":   "services: {a: {image: a, environment: [PLANTED_ENV, 'B=${PLANTED_ENV}']}}\n",
		"a bomb":                  "x-a: &a [1,1,1,1,1,1,1,1,1,1]\nx-b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nx-c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nx-d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\nx-e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nx-f: [*e,*e,*e]\nservices: {a: {image: a}}\n",
		"extends itself":          "services: {a: {image: a, extends: b}, b: {extends: a}}\n",
		"extends each other":      "services: {a: {extends: {file: loop.yaml, service: a}}}\n",
		"includes itself":         "include: [compose.yaml]\n",
		"a bomb of variables":     "include: [{path: other.yaml, env_file: bomb.env}]\n",
		"a bomb of values":        "services: {a: {image: a, environment: ['" + strings.Repeat("${BIG}", 3000) + "']}}\n",
		"a secret in an image":    "services: {a: {image: 'a:${PW}'}}\n",
		"a secret as a number":    "services: {a: {image: a, mem_limit: '${PW}'}}\n",
		"a bind outside":          "services: {a: {image: a, volumes: ['" + up + ":/x']}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PLANTED_ENV", "planted-value")
			tree := texts{
				"apps/shop/compose.yaml": yaml, "apps/shop/other.yaml": "services: {b: {image: b}}\n",
				"apps/shop/evil.yaml": "services: {b: {image: b, env_file: " + planted + "}}\n",
				"apps/shop/loop.yaml": "services: {a: {image: a, extends: {file: compose.yaml, service: a}}}\n",
				"apps/shop/.env":      "COMPOSE_FILE=" + planted + "\nBIG=" + strings.Repeat("x", 10_000) + "\n",
			}
			bomb := "A=xxxxxxxxxx\n"
			for c := 'B'; c <= 'Z'; c++ {
				bomb += fmt.Sprintf("%c=${%c}${%c}${%c}\n", c, c-1, c-1, c-1)
			}
			tree["apps/shop/bomb.env"] = bomb
			r := convertTree(t, TreeOptions{Tree: tree, Vars: []*carav1.SourceVar{{Name: "PW", SecretKeyRef: &carav1.SecretKeyRef{Name: "s", Key: "k"}}}})
			text := ""
			if r.Project != nil {
				encoded, err := manifest.Encode(r.Project)
				if err != nil {
					t.Fatal(err)
				}
				text = string(encoded)
			}
			if strings.Contains(text+all(r), "planted-value") {
				t.Errorf("it was read:\n%s%s", text, all(r))
			}
			harmless := []string{"a configuration by .env", "a value of the server", "a bind outside"}
			if (r.Worst() < Refusal) != slices.Contains(harmless, name) {
				t.Errorf("findings:\n%s", all(r))
			}
			for _, f := range r.Findings {
				if f.File == "" || f.Line == 0 || strings.Contains(f.Message, "cara-compose-") {
					t.Errorf("finding %v", f)
				}
			}
		})
	}
}

// TestTreeErrors: at the line and column of the Compose file.
func TestTreeErrors(t *testing.T) {
	many := texts{}
	for i := range 60 {
		many[fmt.Sprintf("%02d.env", i)] = "A=1\n"
	}
	for name, c := range map[string]struct{ yaml, want string }{
		"a key of the schema":          {"services:\n  web:\n    image: a\n    portz: []\n", "apps/shop/compose.yaml:4:5: refused: services.web.portz: is not a key of the Compose specification\n"},
		"refused":                      {"services:\n  web:\n    image: a\n    restart: always\n    privileged: true\n", "apps/shop/compose.yaml:5:5: refused: services.web.privileged: has no equivalent: containers have no access to the machine; add single capabilities with cap_add\n"},
		"a missing file":               {"services:\n  web:\n    image: a\n    restart: always\n    volumes:\n    - ./x.conf:/x\n", "apps/shop/compose.yaml:6:7: refused: services.web.volumes.0: apps/shop/x.conf does not exist in the source\n"},
		"a value":                      {"services:\n  web:\n    image: a\n    ports:\n    - 99999:80\n", "apps/shop/compose.yaml:5:7: refused: : invalid hostPort: 99999\n"},
		"a bad size":                   {"services:\n  web:\n    image: a\n    mem_limit: 12q\n", "apps/shop/compose.yaml:4:5: refused: services.web.mem_limit: invalid suffix: 'q'\n"},
		"a missing service":            {"services:\n  web:\n    image: a\n    depends_on: [nope]\n", "apps/shop/compose.yaml:4:18: refused: : service \"web\" depends on undefined service \"nope\"\n"},
		"a missing volume":             {"services:\n  web:\n    image: a\n    volumes: ['data:/x']\n", "apps/shop/compose.yaml:4:15: refused: : service \"web\" refers to undefined volume data\n"},
		"a missing env file":           {"services:\n  web:\n    image: a\n    env_file: nope.env\n", "apps/shop/compose.yaml:4:15: refused: : apps/shop/nope.env does not exist\n"},
		"a duplicate key":              {"services:\n  web:\n    image: a\n    image: b\n", "apps/shop/compose.yaml:4:5: refused: : the key \"image\" is already defined at line 3\n"},
		"too many files":               {"services:\n  web:\n    image: a\n    env_file: [" + strings.Join(slices.Sorted(maps.Keys(many)), ", ") + "]\n", "apps/shop/compose.yaml:4:15: refused: : the project reads more than 50 files or 4 MiB; make it smaller\n"},
		"not YAML":                     {"services:\n\tweb: {}\n", "apps/shop/compose.yaml:2:1: refused: : not YAML: a tab where spaces are wanted; indent with spaces\n"},
		"an extended service":          {"services:\n  web:\n    image: a\n    extends: nope\n", "apps/shop/compose.yaml:4:14: refused: : cannot extend service \"web\" in apps/shop/compose.yaml: service \"nope\" not found\n"},
		"extends in a circle":          {"services:\n  a: {image: a, extends: c}\n  b:\n    extends: b\n  c: {image: c}\n", "apps/shop/compose.yaml:4:5: refused: services.b.extends: extends leads back to this service: b in apps/shop/compose.yaml extends b in apps/shop/compose.yaml\n"},
		"includes in a circle":         {"# first\nservices: {}\ninclude:\n- loop.yaml\n", "apps/shop/compose.yaml:4:3: refused: : include leads back to a file that includes it: apps/shop/compose.yaml include apps/shop/loop.yaml include apps/shop/compose.yaml\n"},
		"depends in a circle":          {"services:\n  z: {image: z, depends_on: [a]}\n  a:\n    image: a\n    depends_on: [b]\n  b:\n    image: b\n    depends_on: [a]\n", "apps/shop/compose.yaml:5:5: refused: services.a.depends_on: depends_on leads back to this service: a -> b -> a\n"},
		"a key of an included":         {"include: [wrong.yaml]\nservices: {}\n", "apps/shop/wrong.yaml:1:26: refused: services.b.portz: is not a key of the Compose specification\n"},
		"a refused key of an included": {"include: [strong.yaml]\nservices: {}\n", "apps/shop/strong.yaml:1:43: refused: services.b.privileged: has no equivalent: containers have no access to the machine; add single capabilities with cap_add\n"},
		"an image":                     {"services:\n  web:\n    restart: always\n    image: Upper\n", "apps/shop/compose.yaml:4:5: refused: services.web.image: \"Upper\" is no image reference: invalid reference format: repository name (library/Upper) must be lowercase; write one such as postgres:15 or registry.example.com/team/app:1.2\n"},
		"no image":                     {"services:\n  web:\n    labels: {context: image}\n", "apps/shop/compose.yaml:2:3: refused: : service \"web\" has neither an image nor a build context specified\n"},
		"a restart":                    {"services:\n  web:\n    image: a\n    restart: sometimes\n", "apps/shop/compose.yaml:4:5: refused: services.web.restart: \"sometimes\" is not known: use no, on-failure, always or unless-stopped\n"},
		"a secret":                     {"services:\n  web:\n    image: a\n    secrets: [x]\n", "apps/shop/compose.yaml:4:15: refused: : service \"web\" refers to undefined secret x\n"},
		"a file of variables":          {"services:\n  web:\n    image: a\n    env_file: open.env\n", "apps/shop/open.env:3:1: refused: : a value has no closing quote, here or above\n"},
		"a comment above":              {"# first\nservices:\n  web:\n    image: a\n    env_file: nope.env\n", "apps/shop/compose.yaml:5:15: refused: : apps/shop/nope.env does not exist\n"},
		"a required variable":          {"services:\n  web:\n    image: ${NOPE:?set it}\n", "apps/shop/compose.yaml:3:5: refused: services.web.image: required variable NOPE is missing a value: set it\n"},
		"a name":                       {"name: My Shop\nservices: {web: {image: a, restart: always}}\n", "apps/shop/compose.yaml:1:1: note: name: the project is named myshop\n"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := texts{
				"apps/shop/compose.yaml": c.yaml, "apps/shop/loop.yaml": "include: [compose.yaml]\n", "apps/shop/open.env": "A=1\nB=\"hidden\n",
				"apps/shop/strong.yaml": "services: {b: {image: b, restart: always, privileged: true}}\n",
				"apps/shop/wrong.yaml":  "services: {b: {image: b, portz: []}}\n",
			}
			for name, data := range many {
				tree["apps/shop/"+name] = data
			}
			if diff := cmp.Diff(c.want, all(convertTree(t, TreeOptions{Tree: tree}))); diff != "" {
				t.Error(diff)
			}
		})
	}
}
