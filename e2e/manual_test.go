package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// logged waits until a service has written something: a container runs before its program has said a word.
func (w *testCluster) logged(project, service, words string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, service+" of "+project+" writes "+words, func(ctx context.Context) error {
		r, err := w.Ctl(ctx, "", "logs", project, "-s", service)
		if err == nil && !strings.Contains(r.Stdout, words) {
			err = fmt.Errorf("exit code %d, %q %q", r.Code, r.Stdout, r.Stderr)
		}
		return err
	}))
}

// want is how a command must end, to the letter.
func (w *testCluster) want(r testcluster.Result, code int, stdout, stderr string) {
	w.Helper()
	if r.Code != code || r.Stdout != stdout || r.Stderr != stderr {
		w.Errorf("exit code %d\nstdout %q\nstderr %q\nwant %d\n%q\n%q", r.Code, r.Stdout, r.Stderr, code, stdout, stderr)
	}
}

// TestUserGuide walks the user guide's commands: what is printed, and the exit codes.
func TestUserGuide(t *testing.T) {
	w := oneNode(t)
	name := w.name("hello")
	file := filepath.Join(w.Dir, "project.yaml")
	manifest := w.web(name, testimage.WebV1)
	w.write(file, manifest)

	w.want(w.ctl("", "diff", "-f", file), 1, "project/"+name+" would be created\n", "")
	w.want(w.ctl("", "apply", "-f", file), 0, "project/"+name+" created\n", "")
	w.running(name)
	w.want(w.ctl("", "apply", "-f", file), 0, "project/"+name+" unchanged\n", "")
	w.want(w.ctl("", "diff", "-f", file), 0, "", "")

	w.write(file, w.web(name, testimage.WebV2))
	w.want(w.ctl("", "diff", "-f", file), 1, "project/"+name+" would be configured\n"+
		"  - spec.services[web].image: \"cara-fixtures/web:v1\"\n  + spec.services[web].image: \"cara-fixtures/web:v2\"\n", "")
	w.want(w.ctl("", "apply", "-f", file), 0, "project/"+name+" configured\n", "")
	w.running(name)

	table := w.ctl("", "get", "projects").Stdout
	lines := strings.Split(table, "\n")
	if got, want := strings.Fields(lines[0]), "NAME PHASE READY NODE CONDITIONS SOURCE EXPIRES AGE"; strings.Join(got, " ") != want {
		t.Errorf("columns %v, want %s", got, want)
	}
	if fields := strings.Fields(lines[1]); len(fields) != 8 || strings.Join(fields[:7], " ") != name+" Running 1/1 n1 - user/admin -" {
		t.Errorf("row %q", lines[1])
	}
	w.says("get -o json", w.ctl("", "get", "project", name, "-o", "json").Stdout,
		`"nodeRef": "n1"`, `"phase": "Running"`, `"type": "Ready"`, `"status": "True"`)
	w.says("get -o yaml", w.ctl("", "get", "project", name, "-o", "yaml").Stdout, "apiVersion: caravanserai/v1", "nodeRef: n1")
	w.want(w.ctl("", "get", "projects", "-o", "name"), 0, "project/"+name+"\n", "")
	w.says("describe", w.ctl("", "describe", "project", name).Stdout, name, "Running", "n1", testimage.WebV2, "Scheduled", "Ready")
	w.says("nodes", w.ctl("", "get", "nodes").Stdout, "NAME", "n1", "Ready")
	w.says("describe node", w.ctl("", "describe", "node", "n1").Stdout, "n1", "Ready", "linux/")
	w.says("version", w.ctl("", "version").Stdout, "caractrl:", "cara-server:", "user/admin")

	// Which of the two it is depends on how fast the engine is: an agent has two seconds.
	gone, going := fmt.Sprintf("project %q deleted\n", name), fmt.Sprintf("project %q is being deleted\n", name)
	if r := w.ctl("", "delete", "project", name); r.Code != 0 || r.Stderr != "" || (r.Stdout != gone && r.Stdout != going) {
		t.Errorf("%+v, want %q or %q", r, gone, going)
	}
	w.gone(name)
	w.apply(w.web(name, testimage.WebV1) + "  nodeSelector: {is: nowhere}\n")
	w.want(w.ctl("", "delete", "project", name), 0, gone, "") // it never had a node
	w.want(w.ctl("", "get", "project", name), 1, "", fmt.Sprintf("error: project %q not found\n", name))
	w.want(w.ctl("", "delete", "project", name), 1, "", fmt.Sprintf("error: project %q not found\n", name))
	w.want(w.ctl("", "get", "projects"), 0, "", "no projects found\n")
}

// TestDeleteThatTakesLonger answers after two seconds, and goes on.
func TestDeleteThatTakesLonger(t *testing.T) {
	w := oneNode(t)
	name := w.name("stubborn")
	w.apply(project(name, `
services:
- name: web
  image: `+testimage.WebV1+`
  env: [{name: IGNORE_TERM, value: "1"}]
  stopGracePeriod: 5s`))
	w.running(name)
	w.want(w.ctl("", "delete", "project", name), 0, fmt.Sprintf("project %q is being deleted\n", name), "")
	if p := w.project(name); p.GetStatus().GetPhase() != "Terminating" {
		t.Errorf("phase %s", p.GetStatus().GetPhase())
	}
	w.says("the list", w.ctl("", "get", "projects").Stdout, "Terminating")
	w.gone(name)
}

// TestApplyFromStandardInputAndDirectories, many documents at once, with --wait.
func TestApplyFromStandardInputAndDirectories(t *testing.T) {
	w := oneNode(t)
	a, b, c := w.name("a"), w.name("b"), w.name("c")
	both := w.web(a, testimage.WebV1) + "---\n" + w.web(b, testimage.WebV1)
	w.want(w.ctl(both, "apply", "-f", "-", "--dry-run"), 0,
		fmt.Sprintf("project/%s created (dry run)\nproject/%s created (dry run)\n", a, b), "")
	r := w.ctl(both, "apply", "-f", "-", "--wait")
	if want := fmt.Sprintf("project/%s created\nproject/%s created\n", a, b); r.Code != 0 || r.Stdout != want {
		t.Errorf("%+v, want %q", r, want)
	}
	w.says("--wait", r.Stderr, "project/"+a+" Running", "project/"+b+" Running")
	dir := filepath.Join(w.Dir, "manifests")
	w.must(os.MkdirAll(filepath.Join(dir, "deeper"), 0o700))
	w.write(filepath.Join(dir, "a.yaml"), w.web(a, testimage.WebV1))
	w.write(filepath.Join(dir, "c.yml"), w.web(c, testimage.WebV1))
	w.write(filepath.Join(dir, "notes.txt"), "no manifest")
	w.want(w.ctl("", "apply", "-f", dir), 0, fmt.Sprintf("project/%s unchanged\nproject/%s created\n", a, c), "")
	if r := w.ctl("", "apply", "-f", filepath.Join(dir, "nothing.yaml")); r.Code != 1 {
		t.Errorf("%+v", r)
	}
	r = w.ctl("", "delete", "-f", dir, "--wait")
	if r.Code != 0 {
		t.Errorf("%+v", r)
	}
	w.gone(a, c)
}

// TestLogsFollow shows what the containers wrote, then what they write, with a prefix where there are several.
func TestLogsFollow(t *testing.T) {
	w := oneNode(t)
	name := w.name("talker")
	w.apply(project(name, `
services:
- name: db
  image: `+testimage.KV+`
- name: web
  image: `+testimage.WebV1+`
ingress:
- name: web
  host: `+name+`.test
  target: {service: web, port: 8080}`))
	w.running(name)
	w.logged(name, "db", "kv v1 listens on")
	w.logged(name, "web", "web v1 listens on")
	all := w.ctl("", "logs", name)
	w.says("logs", all.Stdout, "db  | kv v1 listens on", "web | web v1 listens on")
	if one := w.ctl("", "logs", name, "-s", "web"); one.Code != 0 || !strings.HasPrefix(one.Stdout, "web v1 listens on") {
		t.Errorf("of one service: %+v", one)
	}
	if none := w.ctl("", "logs", name, "-s", "nope"); none.Code != 1 || !strings.Contains(none.Stderr, "nope") {
		t.Errorf("of a service that is not there: %+v", none)
	}

	follow := exec.CommandContext(t.Context(), filepath.Join(w.Bin, "caractrl"), "--server", w.URL(),
		"--token-file", filepath.Join(w.DataDir(), "admin.token"), "logs", "-f", name, "-s", "web")
	follow.Env = w.Env()
	out, err := follow.StdoutPipe()
	w.must(err)
	w.must(follow.Start())
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			select {
			case lines <- scan.Text():
			case <-t.Context().Done():
				return
			}
		}
	}()
	w.line(lines, "web v1 listens on")
	w.answers("n1", name+".test", "/env", 200)
	w.line(lines, "GET "+name+".test /env")
	w.must(follow.Process.Signal(os.Interrupt))
	for range lines { // to its end
	}
	if err := follow.Wait(); follow.ProcessState.ExitCode() > 0 && follow.ProcessState.ExitCode() != 130 {
		t.Errorf("interrupted: %v", err)
	}
}

// line waits for a line with these words.
func (w *testCluster) line(lines <-chan string, words string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	for {
		select {
		case line, open := <-lines:
			if strings.Contains(line, words) {
				return
			}
			if !open {
				w.Fatalf("the output ended without %q", words)
			}
		case <-ctx.Done():
			w.Fatalf("no line with %q", words)
		}
	}
}

// TestManualChangeOfWhatGitOwns is refused with where it comes from, unless it is an override.
func TestManualChangeOfWhatGitOwns(t *testing.T) {
	w := oneNode(t)
	name := w.name("owned")
	repo := w.repository("platform")
	repo.Write("deploy/web.yaml", w.web(name, testimage.WebV1))
	revision := w.push(repo, "Start")
	w.running(name)
	from := "source/platform, deploy/web.yaml at " + revision[:7]
	changed := w.web(name, testimage.WebV2)
	if r := w.ctl(changed, "apply", "-f", "-"); r.Code != 1 || !strings.Contains(r.Stderr, from) {
		t.Errorf("apply: %+v, want %q", r, from)
	}
	if r := w.ctl("", "delete", "project", name); r.Code != 1 || !strings.Contains(r.Stderr, from) {
		t.Errorf("delete: %+v, want %q", r, from)
	}
	w.want(w.ctl(changed, "apply", "-f", "-", "--override", "--reason", "incident 7"), 0, "project/"+name+" configured\n", "")
	w.answers("n1", name+".test", "/", 200, "web v2")
	w.says("overrides", w.ctl("", "get", "overrides").Stdout, name, "user/admin", "incident 7")
	w.says("the list", w.ctl("", "get", "projects").Stdout, "Overridden")
	if r := w.ctl("", "override", "clear", name); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	w.answers("n1", name+".test", "/", 200, "web v1")
}
