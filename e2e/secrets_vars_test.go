package e2e

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// helpers plants logins in credential helpers, and returns the agent's flags.
func (p *secretValues) helpers(t *testing.T) []string {
	t.Helper()
	p.served, p.broken = testregistry.New(t), testregistry.New(t)
	p.served.TokenLogin("somebody", "else")
	p.broken.TokenLogin("somebody", "else")
	served, give := testregistry.NewLoginHelper(t, p.one("user of a credential helper"))
	give(p.one("password of a credential helper"))
	broken := testregistry.NewHelper(t, "echo '{\"Username\": "+p.one("what is not JSON")+"'\necho "+p.one("what a helper writes to stderr")+" >&2\nexit 1\n")
	return []string{"--credential-helper", p.served.Addr() + "=" + served.Path, "--credential-helper", p.broken.Addr() + "=" + broken.Path}
}

// plantVariables plants values of Secrets in variables of a source of manifests and of one of Compose files. Some are used where they may
// not be. It returns the project whose container prints the value and crashes.
func (w *testCluster) plantVariables(p *secretValues) (crashes string) {
	w.Helper()
	w.secret("vars", keyed(p.some("variable of a source", 2)))
	vars := []string{"allow: {secrets: [vars]}", "vars:", "- {name: PW, secretKeyRef: {name: vars, key: key1}}", "- {name: OTHER, secretKeyRef: {name: vars, key: key2}}"}
	crashes = w.name("varied")
	service := "\nservices:\n- name: web\n  image: " + testimage.Busybox + "\n"
	w.origin("varied", map[string]string{
		"crash.yaml": project(crashes, service+"  command: [sh, -c, 'cat /etc/pw; echo with $URL; exit 3']\n  env: [{name: URL, value: 'u:${PW}@db'}]\n"+
			"  files: [{path: /etc/pw, content: \"pw=${OTHER}\\n\"}]\n"),
		"image.yaml":   project(w.name("image"), strings.Replace(service, testimage.Busybox, "a:${PW}", 1)),
		"unknown.yaml": project(w.name("unknown"), service+"  env: [{name: A, value: '${PW} ${NOPE}'}]\n"),
	}, vars...)
	w.origin("stacks", map[string]string{
		w.name("stack") + "/compose.yaml":  "services:\n  web:\n    image: " + testimage.Busybox + "\n    restart: always\n    command: sh -c 'echo $$URL; exit 3'\n    environment: {URL: 'u:${PW}@db'}\n",
		w.name("image2") + "/compose.yaml": "services: {web: {image: 'a:${PW}', mem_limit: '${OTHER}'}}\n",
		w.name("ports") + "/compose.yaml":  "services: {web: {image: a, ports: ['${PW}:80'], env_file: no-${OTHER}.env}}\n",
		w.name("label") + "/compose.yaml":  "services: {web: {image: a, restart: '${PW}', depends_on: ['${OTHER}']}}\n",
	}, append(vars, "format: Compose")...)
	for _, source := range []string{"varied", "stacks"} {
		w.untilSource(source, "has errors", func(s *carav1.Source) bool { return len(s.GetStatus().GetSnapshot().GetFileErrors()) >= 2 })
	}
	return crashes
}

// reader logs in to the page and returns what fetches a view of it.
func (w *testCluster) reader() func(path string) string {
	w.Helper()
	jar, err := cookiejar.New(nil)
	w.must(err)
	client := &http.Client{Jar: jar}
	fetch := func(address string) string {
		w.Helper()
		req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, address, nil)
		w.must(err)
		resp, err := client.Do(req)
		w.must(err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		w.must(err)
		if resp.StatusCode != http.StatusOK || strings.HasSuffix(resp.Request.URL.Path, "/login") {
			w.Errorf("the page answers %d for %s, from %s", resp.StatusCode, address, resp.Request.URL)
		}
		return string(text)
	}
	fetch(strings.TrimSpace(w.ctl("", "page").Stdout))
	return func(path string) string { return fetch(w.URL() + path) }
}
