package manifest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

func vars() []*carav1.SourceVar {
	return []*carav1.SourceVar{
		{Name: "TAG", Value: "1.10"},
		{Name: "PORT", Value: "8080"},
		{Name: "HOST", Value: "shop: #x"},
		{Name: "DOLLAR", Value: "a$b"},
		{Name: "EMPTY"},
		{Name: "ON", Value: "true"},
		{Name: "PW", SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "password"}},
	}
}

const service = "apiVersion: caravanserai/v1\nkind: Project\nmetadata: {name: shop}\nspec:\n  services:\n  - name: web\n"

func TestVars(t *testing.T) {
	docs, problems := manifest.Reading{Vars: vars()}.Parse("web.yaml", []byte(service+`    image: nginx:${TAG}
    init: ${ON}
    noNewPrivileges: "${ON}"
    env:
    - {name: A, value: "${HOST} ${NONE:-x}"}
    - name: TAG
      value: ${TAG}
    - {name: DB, value: "postgres://u:${PW}@db/$${DOLLAR} ${DOLLAR} ${PW}"}
    - {name: RAW, value: "$HOME $$ 5$"}
    healthcheck: {tcp: {port: '${PORT}'}, retries: "${NONE:-4}"}
    files:
    - path: /etc/a
      content: |
        tag=${TAG}
        password=${PW}
`))
	for _, p := range problems {
		t.Error(manifest.Format(p))
	}
	pw := []*carav1.SecretVar{{Name: "PW", SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "password"}}}
	want := &carav1.Service{
		Name: "web", Image: "nginx:1.10", Init: true, NoNewPrivileges: true, Env: []*carav1.EnvVar{
			{Name: "A", Value: "shop: #x x"},
			{Name: "TAG", Value: "1.10"},
			{Name: "DB", Value: "postgres://u:${PW}@db/$${DOLLAR} a$$b ${PW}", SecretVars: pw},
			{Name: "RAW", Value: "$HOME $ 5$"},
		},
		Healthcheck: &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 8080}, Retries: 4},
		Files:       []*carav1.File{{Path: "/etc/a", Content: "tag=1.10\npassword=${PW}\n", SecretVars: pw}},
	}
	if len(docs) != 1 {
		t.Fatalf("%d documents", len(docs))
	}
	if diff := cmp.Diff(want, docs[0].Object.(*carav1.Project).GetSpec().GetServices()[0], protocmp.Transform()); diff != "" {
		t.Errorf("service (-want +got):\n%s", diff)
	}
}

// TestVarErrors: at the line and column of the use.
func TestVarErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"undefined":            {"    image: nginx:${DOLAR}\n", "7:18: spec.services[0].image: the variable DOLAR is not defined; did you mean DOLLAR?"},
		"without a near one":   {"    image: 'é${TAG}${VERSION}'\n", "7:20: spec.services[0].image: the variable VERSION is not defined; add it to spec.vars of the source, or give a default: ${VERSION:-default}"},
		"the second of two":    {"    image: nginx\n    args: ['${TAG} ${X:-}', '${X:-} $${X} ${X}']\n", "8:43: spec.services[0].args[1]: the variable X is not defined"},
		"in a block":           {"    image: nginx\n    files:\n    - path: /a\n      content: |\n        one ${TAG}\n          two ${NOPE}\n", "12:15: spec.services[0].files[0].content: the variable NOPE"},
		"malformed":            {"    image: nginx:${TAG\n", "7:18: spec.services[0].image: begins with ${ and does not end"},
		"a secret in an image": {"    image: nginx:${PW}\n", "7:18: spec.services[0].image: the variable PW is from a Secret; it can be used in the values of env and the content of files only"},
		"a secret in args":     {"    image: nginx\n    args: ['--password=${PW}']\n", "8:24: spec.services[0].args[0]: the variable PW is from a Secret"},
		"beside a secret":      {"    image: nginx\n    env:\n    - {name: A, value: '${PW} $${NOPE} ${NOPE}'}\n", "9:40: spec.services[0].env[0].value: the variable NOPE is not defined"},
		"a secret as a port":   {"    image: nginx\n    healthcheck:\n      tcp:\n        port: ${PW}\n", "10:15: spec.services[0].healthcheck.tcp.port: the variable PW is from a Secret"},
		"not a number":         {"    image: nginx\n    healthcheck:\n      tcp:\n        port: ${HOST}\n", "10:15: spec.services[0].healthcheck.tcp.port: must be a whole number"},
		"a quoted number":      {"    image: nginx\n    healthcheck: {tcp: {port: '8${EMPTY:-0}'}}\n", "8:31: spec.services[0].healthcheck.tcp.port: must be a whole number, not the text \"80\""},
		"a quoted text":        {"    image: nginx\n    healthcheck: {tcp: {port: '${HOST}'}}\n", "8:31: spec.services[0].healthcheck.tcp.port: must be a whole number, not the text \"shop: #x\""},
		"an invalid value":     {"    image: '${HOST}'\n", "7:12: spec.services[0].image: \"shop: #x\" is no image reference"},
	} {
		t.Run(name, func(t *testing.T) {
			docs, problems := manifest.Reading{Vars: vars()}.Parse("web.yaml", []byte(service+c.text))
			if len(docs) != 0 || len(problems) != 1 || !strings.HasPrefix(manifest.Format(problems[0]), "web.yaml:"+c.want) {
				for _, p := range problems {
					t.Error(manifest.Format(p))
				}
				t.Errorf("%d documents, want %s", len(docs), c.want)
			}
		})
	}
}

// TestWithoutVars: a dollar sign has no meaning.
func TestWithoutVars(t *testing.T) {
	docs, problems := manifest.Parse("web.yaml", []byte(service+"    image: nginx\n    args: ['$$ ${X} ${']\n"), manifest.Limits{})
	if len(problems) > 0 || docs[0].Object.(*carav1.Project).GetSpec().GetServices()[0].GetArgs()[0] != "$$ ${X} ${" {
		t.Errorf("%v, %v", docs, problems)
	}
}

// TestVarBomb: what variables add counts.
func TestVarBomb(t *testing.T) {
	big := []*carav1.SourceVar{{Name: "A", Value: strings.Repeat("x", 16384)}}
	_, problems := manifest.Reading{Vars: big}.Parse("web.yaml", []byte(service+"    image: nginx\n    args: ["+strings.Repeat("'${A}${A}',", 200)+"]\n"))
	if len(problems) != 1 || !strings.Contains(problems[0].GetMessage(), "bytes of values with its variables") {
		t.Errorf("%v", problems)
	}
}
