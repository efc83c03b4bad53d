package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/google/uuid"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/pebble"
)

// secretValues are the values that were given to Cara, with the way that each took.
type secretValues struct {
	values []secretValue
	// Registries for which the agent asks a credential helper: one gives a login that the registry refuses, the other one breaks.
	served, broken *testregistry.Registry
}

type secretValue struct{ value, way string }

// one makes a value and remembers it.
func (p *secretValues) one(way string) string {
	value := "s3cr3t" + strings.ReplaceAll(uuid.NewString(), "-", "")[:14]
	p.values = append(p.values, secretValue{value, way})
	return value
}

func (p *secretValues) some(way string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = p.one(way)
	}
	return out
}

// search looks for every value, as it is and in base64, and says where it found one.
func (p *secretValues) search(t *testing.T, where string, text []byte) (found int) {
	t.Helper()
	for _, v := range p.values {
		for _, form := range []string{v.value, base64.StdEncoding.EncodeToString([]byte(v.value)), base64.StdEncoding.EncodeToString([]byte("x" + v.value))[2:16]} {
			if at := bytes.Index(text, []byte(form)); at >= 0 {
				found++
				t.Errorf("%s has the value that came by %s: ...%s...", where, v.way, text[max(0, at-100):min(len(text), at+120)])
				break
			}
		}
	}
	return found
}

// TestPlantedSecrets gives Cara 200 values by every way that there is, lets whatever can go wrong go wrong, and looks for
// them in all that Cara keeps, says and shows. A value may be in the environment and the log of its own container alone.
func TestPlantedSecrets(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	w := newWorld(t, options{serverFlags: []string{"--log-level", "debug"}})
	testdocker.Images(t, host, testimage.Busybox)
	p := &secretValues{}
	w.agent("n1", host, nil, append(p.helpers(t), "--log-level", "debug")...)
	var said bytes.Buffer // by caractrl and REST
	ctl := func(stdin string, args ...string) {
		r := w.ctl(stdin, args...)
		fmt.Fprintf(&said, "%s\n%s%s\n", strings.Join(args, " "), r.Stdout, r.Stderr)
	}

	crash, fail, check, once, odd, pull := w.name("crash"), w.name("fail"), w.name("check"), w.name("once"), w.name("odd"), w.name("pull")
	// Environment: 60 values that a container prints in several spellings before it crashes, again and again.
	w.secret("env", keyed(p.some("env of a container that crashes", 60)))
	w.apply(project(crash, "services:\n- name: web\n  image: "+testimage.Busybox+
		"\n  command: [sh, -c, 'env | grep KEY | tail -10; env | grep KEY | head -c 300 | base64; echo got $KEY1 for $KEY2; exit 3']\n  env:\n"+references("env", 60)))
	// Files: 20, of one key and of several lines.
	w.secret("files", keyed(p.some("file of a container that fails", 20)))
	w.apply(project(fail, "services:\n- name: web\n  image: "+testimage.Busybox+
		"\n  restartPolicy: Never\n  command: [sh, -c, 'cat /run/k*; exit 1']\n  files:\n"+filesOf("files", 20)))
	// Checks: 40 values that an exec check prints.
	w.secret("checks", keyed(p.some("exec check that prints env", 40)))
	w.apply(project(check, "services:\n- name: web\n  image: "+testimage.Busybox+
		"\n  command: [sleep, 1h]\n  init: true\n  stopGracePeriod: 1s\n  healthcheck: {exec: {command: [sh, -c, 'env | grep KEY; exit 1']}, interval: 500ms, retries: 2}\n  env:\n"+
		references("checks", 40)))
	// A Secret that is changed: its old value and its new one.
	before, after := p.one("a value before a change"), p.one("a value after a change")
	w.secret("turn", map[string]string{"key1": before})
	w.apply(project(once, "services:\n- name: web\n  image: "+testimage.Busybox+"\n  command: [sh, -c, 'echo $KEY1; sleep 1h']\n  stopGracePeriod: 1s\n  env:\n"+references("turn", 1)))
	w.running(once)
	first := w.containers(host, once)
	w.apply("apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: turn}\nstringData: {key1: " + after + "}\n")
	w.until(once, "is recreated for the changed Secret", func(q *carav1.Project) bool {
		s := q.GetStatus().GetServices()
		return len(s) == 1 && s[0].GetContainerId() != "" && first["web"] != "" && s[0].GetContainerId() != first["web"] && api.IsTrue(q.GetStatus().GetConditions(), api.CondReady)
	})
	w.event(api.KindProject, once, "SecretChanged", "the Secret turn changed: recreating services web")
	// Values that no variable can hold.
	for i, bad := range []string{"\x00", "\xff\xfe", strings.Repeat("x", 131_072)} {
		w.apply("apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: odd" + fmt.Sprint(i) + "}\ndata: {key1: " +
			base64.StdEncoding.EncodeToString([]byte(p.one("a value that no variable can hold")+bad)) + "}\n")
		name := odd + fmt.Sprint(i)
		w.apply(project(name, "services:\n- name: web\n  image: "+testimage.Busybox+"\n  command: [sleep, 1h]\n  env:\n"+references("odd"+fmt.Sprint(i), 1)))
		w.until(name, "names Secret and key", func(q *carav1.Project) bool {
			return strings.Contains(condition(q.GetStatus().GetConditions(), api.CondReady).GetMessage(), "the value of key key1 in Secret odd"+fmt.Sprint(i))
		})
	}
	// Pull secrets that the registry refuses.
	registry := testregistry.New(t)
	registry.Login("somebody", "else")
	w.apply("apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: reg}\ntype: registry\nstringData:\n  server: HTTP://" + strings.ToUpper(registry.Addr()) +
		"/\n  username: " + p.one("user of a registry") + "\n  password: " + p.one("password of a registry") + "\n")
	w.apply(project(pull, "imagePullSecrets: [reg]\nservices:\n- name: web\n  image: "+registry.Ref("team/app:1")))
	// Git credentials that the git server refuses, and webhook secrets.
	for i := range 6 {
		s := fmt.Sprintf("git%d", i)
		o := w.origin(s, only("web:1", w.name(s)))
		o.server.Login("ada", "another")
		w.secret(s, map[string]string{"username": p.one("user of git"), "password": p.one("password of git")})
		w.secret("hook"+s, map[string]string{"secret": p.one("webhook")})
		w.apply("apiVersion: caravanserai/v1\nkind: Source\nmetadata: {name: " + s + "}\nspec:\n  interval: 1s\n  git: {url: " + o.server.RepoURL(s) +
			", ref: {branch: main}, secretRef: " + s + ", insecure: true}\n  webhook: {provider: GitHub, secretRef: hook" + s + "}\n")
		w.untilSource(s, "cannot be read", func(s *carav1.Source) bool { return api.IsTrue(s.GetStatus().GetConditions(), api.CondFetchFailed) })
		_, answer := w.deliver(s, "1", "{}", func(h http.Header, _, _ string) {
			h.Set("X-GitHub-Event", "push")
			h.Set("X-Hub-Signature-256", "sha256="+p.one("a forged signature"))
		})
		said.WriteString(answer)
	}
	w.plantEncrypted(p)
	varied := w.plantVariables(p)
	ctl("", "diff", "source/varied")
	ctl("", "describe", "source", "varied")
	ctl("", "describe", "source", "stacks")
	helped, helpless := w.name("helped"), w.name("helpless")
	w.apply(project(helped, "services: [{name: web, image: "+p.served.Ref("team/app:1")+"}]"))
	w.apply(project(helpless, "services: [{name: web, image: "+p.broken.Ref("team/app:1")+"}]"))
	// Malformed Secret documents, in git and by hand.
	broken := w.origin("broken", only("web:1", w.name("ok")))
	for i, doc := range malformed() {
		value := p.one("a malformed Secret document")
		text := strings.ReplaceAll("apiVersion: caravanserai/v1\nkind: Secret\nmetadata: {name: m}\n"+doc, "VALUE", value)
		broken.Write(fmt.Sprintf("m%d.yaml", i), text)
		ctl(text, "apply", "-f", "-")
		resp, body := w.rest(http.MethodPost, "/api/v1/secrets", strings.NewReader(`{"apiVersion":"caravanserai/v1","kind":"Secret","metadata":{"name":"m"},`+
			strings.ReplaceAll([]string{`"stringData":{"a":VALUE}}`, `"stringData":"VALUE"}`, `"stringData":{"VALUE !":"x"}}`}[i%3], "VALUE", value)))
		if resp.StatusCode < 400 {
			t.Errorf("a malformed Secret is answered %d", resp.StatusCode)
		}
		said.WriteString(body)
	}
	broken.save("Break")
	// Tokens.
	for range 20 {
		token := p.one("a token")
		r, _ := w.restAs(token, http.MethodGet, "/api/v1/projects?token="+url.QueryEscape(token), nil)
		if r.StatusCode != http.StatusUnauthorized {
			t.Errorf("a made-up token is answered %d", r.StatusCode)
		}
	}
	for len(p.values) < 200 { // the rest are at rest
		value := p.one("a Secret at rest")
		w.secret("rest"+fmt.Sprint(len(p.values)), map[string]string{"key1": value})
	}

	w.failed(crash, "CrashLoop", "got <redacted> for <redacted>")
	w.failed(varied, "CrashLoop", "pw=<redacted>", "with u:<redacted>@db")
	w.failed(fail, "Exited", "<redacted>")
	w.until(check, "says that its check fails", func(q *carav1.Project) bool {
		s := q.GetStatus().GetServices()
		return len(s) == 1 && strings.Contains(s[0].GetMessage()+condition(q.GetStatus().GetConditions(), api.CondReady).GetMessage(), "KEY1=<redacted>")
	})
	for _, name := range []string{pull, helped, helpless} {
		w.until(name, "is refused by the registry", func(q *carav1.Project) bool {
			c := condition(q.GetStatus().GetConditions(), api.CondImagesReady)
			return c.GetStatus() == api.StatusFalse && c.GetReason() != string(api.ReasonPulling)
		})
	}

	for _, kind := range []string{"projects", "sources", "secrets", "nodes", "events", "tokens"} {
		ctl("", "get", kind, "-o", "json")
		ctl("", "get", kind)
	}
	page := w.reader()
	for _, path := range []string{"/ui/projects", "/ui/sources/varied", "/ui/sources/stacks", "/ui/sources/encrypted"} {
		said.WriteString(page(path))
	}
	for _, name := range []string{crash, fail, check, once, odd + "0", pull, varied, helped, helpless} {
		said.WriteString(page("/ui/projects/" + name))
		ctl("", "describe", "project", name)
		ctl("", "history", "project/"+name)
	}
	ctl("", "describe", "source", "broken")
	ctl("", "diff", "source/broken")
	token, err := w.Token()
	w.must(err)
	_, metrics := w.restAs(token, http.MethodGet, "/metrics", nil)
	said.WriteString(metrics)
	found := p.search(t, "what caractrl and REST show", said.Bytes())

	archive := filepath.Join(t.TempDir(), "cara.tar")
	if r := w.ctl("", "backup", "server", archive); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	found += p.searchTar(t, archive) + p.searchFiles(t, w.Dir) + p.searchEngine(w, host)
	w.must(w.Server.Kill())
	found += p.searchStore(w)
	w.start()
	t.Logf("%d values planted, %d found", len(p.values), found)
}

func keyed(values []string) map[string]string {
	out := map[string]string{}
	for i, v := range values {
		out[fmt.Sprintf("key%d", i+1)] = v
	}
	return out
}

func references(secret string, n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "  - {name: KEY%d, valueFrom: {secretKeyRef: {name: %s, key: key%d}}}\n", i, secret, i)
	}
	return b.String()
}

func filesOf(secret string, n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "  - {path: /run/k%d, secretKeyRef: {name: %s, key: key%d}}\n", i, secret, i)
	}
	return b.String()
}

// malformed are Secret documents with a mistake each.
func malformed() []string {
	return []string{
		"stringData: VALUE\n", "stringData: [VALUE]\n", "stringData: {VALUE}\n", "stringData: {pin: [VALUE]}\n", "stringData: {pin: !VALUE x}\n",
		"stringData: {pin: *VALUE}\n", "data: {pin: VALUE!}\n", "data: VALUE\n", "stringData: {\"VALUE is it\": x}\n", "stringData: {pin: {a: VALUE}}\n",
		"stringData:\n  pin: \"VALUE\n", "stringData:\n  pin: @VALUE\n", "stringData:\n  pin: VALUE: VALUE\n", "VALUE: x\n", "type: VALUE\n", "stringdata: {pin: VALUE}\n",
		"metadata: VALUE\n", "stringData:\n\tpin: VALUE\n", "stringData: {<<: VALUE}\n", "stringData: {pin: \"VALUE\\q\"}\n",
	}
}

func (p *secretValues) searchFiles(t *testing.T, dir string) (found int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		found += p.search(t, path, data)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

func (p *secretValues) searchTar(t *testing.T, archive string) (found int) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if err == io.EOF { //nolint:errorlint // as the package returns it
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found += p.search(t, "the backup's "+h.Name, data)
	}
}

// searchEngine looks at every container of the engine. Of those of this cluster the environment is left out.
func (p *secretValues) searchEngine(w *testCluster, host string) (found int) {
	w.Helper()
	docker, err := testdocker.Client(host)
	w.must(err)
	defer docker.Close()
	list, err := docker.ContainerList(w.Context(), container.ListOptions{All: true})
	w.must(err)
	for _, c := range list {
		inspected, err := docker.ContainerInspect(w.Context(), c.ID)
		if err != nil {
			continue // another test's, which is gone
		}
		if strings.Contains(inspected.Config.Labels[api.LabelProject], w.id) {
			inspected.Config.Env = nil
		}
		text, err := json.Marshal(inspected)
		w.must(err)
		found += p.search(w.T, "docker inspect "+inspected.Name, text)
	}
	return found
}

// searchStore looks at every object of a server that does not run: its files are compressed.
func (p *secretValues) searchStore(w *testCluster) (found int) {
	w.Helper()
	s, err := pebble.Open(pebble.Config{Dir: w.DataDir() + "/store"})
	w.must(err)
	defer func() { w.must(s.Close()) }()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	objects := 0
	for after := ""; ; {
		page, err := s.List(ctx, "", store.ListOptions{After: after, Limit: 500})
		w.must(err)
		for _, kv := range page.KVs {
			objects++
			after = kv.Key
			found += p.search(w.T, "the store's "+kv.Key, kv.Value)
		}
		if len(page.KVs) == 0 {
			break
		}
	}
	if objects < 50 {
		w.Errorf("only %d objects were looked at", objects)
	}
	return found
}
