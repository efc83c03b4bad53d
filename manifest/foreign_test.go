package manifest

import (
	"strings"
	"testing"
)

func TestForeign(t *testing.T) {
	for name, tt := range map[string]struct{ file, text, want string }{
		"npm":                        {"package.json", `{"name":"shop","version":"1.0.0"}`, "a file of an npm package"},
		"settings with comments":     {"tsconfig.json", "{\n// strict\n\"strict\": true}", "a settings file of another tool"},
		"compose":                    {"docker-compose.yml", "services:\n  web:\n    image: nginx\n", "a Compose file"},
		"compose by another name":    {"stack.yml", "services:\n  web:\n    image: nginx\n", "a Compose file"},
		"workflow":                   {"ci.yaml", "on: push\njobs:\n  test: {}\n", "a GitHub workflow"},
		"pipeline":                   {"ci.yml", "stages: [build]\n", "a GitLab pipeline"},
		"deployment":                 {"web.yaml", "apiVersion: apps/v1\nkind: Deployment\n", "a Kubernetes manifest (Deployment)"},
		"secret of Kubernetes":       {"s.yaml", "apiVersion: v1\nkind: Secret\nstringData: {a: hunter2}\n", "a Kubernetes manifest (Secret)"},
		"project of OpenShift":       {"p.yaml", "apiVersion: project.openshift.io/v1\nkind: Project\n", "a Kubernetes manifest (Project)"},
		"kind that is no word":       {"p.yaml", "apiVersion: x/v1\nkind: 'a b'\n", "a Kubernetes manifest"},
		"chart":                      {"Chart.yaml", "apiVersion: v2\nname: shop\n", "a Helm chart"},
		"template":                   {"templates/web.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\n{{- if .Values.x }}\n", "a Helm template"},
		"list":                       {"play.yml", "- hosts: all\n", "text or a list, not a manifest"},
		"project without its head":   {"p.yaml", "metadata: {name: a}\nspec: {services: []}\n", "a project without its head; add apiVersion: caravanserai/v1 and kind: Project"},
		"too much to parse":          {"data.json", "[" + strings.Repeat("1,", 300_000) + "1]", "a large file of another tool: it has no apiVersion and no kind of Cara's"},
		"ours":                       {"p.yaml", "apiVersion: caravanserai/v1\nkind: Project\n", ""},
		"ours of another version":    {"p.yaml", "apiVersion: caravanserai/v9\nkind: Projct\n", ""},
		"ours by kind alone":         {"p.yaml", "kind: Project\n", ""},
		"ours by kind, wrong case":   {"p.yaml", "Kind: project\n", ""},
		"ours with a core version":   {"p.yaml", "apiVersion: v1\nkind: Project\n", ""},
		"ours in JSON":               {"p.json", `{"apiVersion":"caravanserai\/v1","kind":"Project"}`, ""},
		"ours in the second":         {"p.yaml", "a: 1\n---\nkind: Project\n", ""},
		"ours that is too much":      {"p.json", `{"kind":"Project","a":[` + strings.Repeat("1,", 300_000) + "1]}", ""},
		"ours with a typing error":   {"p.yaml", "apiVersion: caravanserai/v1\nkind: [Project\n", ""},
		"a typing error and no mark": {"p.yaml", "a: [b\n", ""},
		"empty":                      {"p.yaml", "# nothing\n", ""},
		"no text":                    {"p.yaml", "\x7fELF\x00", ""},
	} {
		t.Run(name, func(t *testing.T) {
			looks, foreign := Foreign(tt.file, []byte(tt.text))
			if looks != tt.want || foreign != (tt.want != "") {
				t.Errorf("looks like %q, foreign %v; want %q", looks, foreign, tt.want)
			}
		})
	}
}

// Advice that, once followed, is accepted.
func TestDurationsNeedAUnit(t *testing.T) {
	const head = "apiVersion: caravanserai/v1\nkind: Source\nmetadata: {name: a}\nspec:\n  dir: {path: /srv}\n  interval: "
	_, problems := Parse("s.yaml", []byte(head+"5\n"), Limits{})
	if len(problems) != 1 || problems[0].Message != "must be a duration, not a number; write its unit too: 5s" {
		t.Fatalf("problems %v", problems)
	}
	if docs, problems := Parse("s.yaml", []byte(head+"5s\n"), Limits{}); len(docs) != 1 || len(problems) != 0 {
		t.Errorf("%v %v", docs, problems)
	}
}

func TestYAMLDirective(t *testing.T) {
	const body = "apiVersion: caravanserai/v1\nkind: Source\nmetadata: {name: a}\nspec: {dir: {path: /srv}}\n"
	for head, want := range map[string]string{
		"%YAML 1.1\n---\n": "", "%YAML 1.2\n---\n": "", "# made by a tool\n%YAML 1.2\n---\n": "",
		"%YAML 2.0\n---\n": "remove the %YAML line, or write %YAML 1.2",
	} {
		docs, problems := Parse("s.yaml", []byte(head+body), Limits{})
		if want == "" && (len(docs) != 1 || len(problems) != 0) || want != "" && (len(problems) != 1 || !strings.HasSuffix(problems[0].Message, want)) {
			t.Errorf("%q: %v %v", head, docs, problems)
		}
	}
}
