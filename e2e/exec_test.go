package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// toolbox runs a project of one service that does nothing and has a shell, and returns its name.
func (w *testCluster) toolbox(short string) string {
	w.Helper()
	for _, host := range w.engines {
		testdocker.Images(w.T, host, testimage.Busybox)
	}
	name := w.name(short)
	w.apply(project(name, `
services:
- name: tools
  image: `+testimage.Busybox+`
  command: [sleep, 1h]
  init: true
  stopGracePeriod: 1s`))
	w.running(name)
	return name
}

// alone waits until a service's container has no process but its own and that of its init.
func (w *testCluster) alone(project, service string) {
	w.Helper()
	docker, err := testdocker.Client(w.engines[0])
	w.must(err)
	defer docker.Close()
	id := w.containers(w.engines[0], project)[service]
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "nothing else runs in "+service, func(ctx context.Context) error {
		top, err := docker.ContainerTop(ctx, id, nil)
		if err == nil && len(top.Processes) > 2 {
			err = fmt.Errorf("it has %v", top.Processes)
		}
		return err
	}))
}

// begin runs caractrl beside the test.
func (w *testCluster) begin(args ...string) *testcluster.Process {
	w.Helper()
	w.started++
	p, err := testcluster.Start(filepath.Join(w.Dir, fmt.Sprintf("ctl-%d.out", w.started)), w.Env(), append([]string{
		filepath.Join(w.Bin, "caractrl"), "--server", w.URL(), "--token-file", filepath.Join(w.DataDir(), "admin.token"),
	}, args...)...)
	w.must(err)
	w.Cleanup(func() {
		if err := p.Kill(); err != nil {
			w.Error(err)
		}
	})
	return p
}

// prints waits until a program has printed a text.
func (w *testCluster) prints(p *testcluster.Process, text string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, fmt.Sprintf("it prints %q", text), func(context.Context) error {
		if all := p.Tail(100); !strings.Contains(all, text) {
			return fmt.Errorf("it has printed %q", all)
		}
		return nil
	}))
}

func TestExec(t *testing.T) {
	w := oneNode(t)
	shop := w.toolbox("shop")
	two := w.name("two")
	w.apply(project(two, `
services:
- name: web
  image: `+testimage.WebV1+`
- name: job
  image: `+testimage.Job+`
  args: [-exit, "0"]
  restartPolicy: Never`))
	w.running(two)

	r := w.ctl("", "exec", shop, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if r.Code != 7 || r.Stdout != "out\n" || r.Stderr != "err\n" {
		t.Errorf("a command: %+v", r)
	}
	random := make([]byte, 1<<20)
	_, _ = rand.Read(random)
	text := base64.StdEncoding.EncodeToString(random)
	if r := w.ctl(text, "exec", "-i", "project/"+shop, "-s", "tools", "--", "cat"); r.Code != 0 || r.Stdout != text {
		t.Errorf("a megabyte there and back: code %d, %d bytes of %d, %s", r.Code, len(r.Stdout), len(text), r.Stderr)
	}
	if r := w.ctl("unread", "exec", shop, "--", "cat"); r.Code != 0 || r.Stdout != "" {
		t.Errorf("without -i there is no input: %+v", r)
	}
	if r := w.ctl("", "exec", "-u", "nobody", "-w", "/tmp", shop, "--", "sh", "-c", "id -un; pwd"); r.Stdout != "nobody\n/tmp\n" {
		t.Errorf("another user and directory: %+v", r)
	}
	if r := w.ctl("", "exec", shop, "--", "/nothing/here"); r.Code != 127 || !strings.Contains(r.Stdout+r.Stderr, "no such file") {
		t.Errorf("a command that is not there: %+v", r)
	}
	for args, want := range map[string]string{
		"exec " + two + " -- ls":           "say which: project \"" + two + "\" has web, job",
		"exec " + two + " -s nope -- ls":   "has web, job",
		"exec " + two + " -s job -- ls":    "service job of project " + two + " is not running: its container is exited",
		"exec nothing -- ls":               `project "nothing" not found`,
		"exec -t " + shop + " -- ls":       "-t needs a terminal",
		"exec " + shop + "/a/b/c -- ls":    "does not name a project or a service",
		"exec project/" + two + "/x -- ls": `is "x"`,
	} {
		if r := w.ctl("", strings.Fields(args)...); r.Code != 125 || !strings.Contains(r.Stderr, want) || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("%s: %+v\nwant %q", args, r, want)
		}
	}
	_, said := w.rest("POST", "/api/v1/projects/"+shop+"/exec", strings.NewReader(
		`{"start": {"command": ["cat"], "stdin": true}}`+"\n"+`{"stdin": "aGVsbG8K"}`+"\n"))
	if said != `{"stdout":""}`+"\n"+`{"stdout":"aGVsbG8K"}`+"\n"+`{"exitCode":0}`+"\n" {
		t.Errorf("over REST: %s", said)
	}
	r = w.ctl("", "get", "events", "--for", "project/"+shop)
	w.says("the project's events", r.Stdout, `runs "sh" in service tools`)
	if strings.Contains(r.Stdout, "echo out") {
		t.Errorf("the events have a command's arguments:\n%s", r.Stdout)
	}

	// Who leaves takes the command along.
	gone := w.begin("exec", shop, "--", "sh", "-c", "echo begun; sleep 1000")
	w.prints(gone, "begun")
	w.must(gone.Kill())
	w.alone(shop, "tools")

	// An agent that ends, ends its streams, and says so.
	cut := w.begin("exec", shop, "--", "sh", "-c", "echo begun; sleep 1000")
	w.prints(cut, "begun")
	w.must(w.Agents["n1"].Kill())
	w.prints(cut, "node n1 has disconnected")
	if code := cut.ExitCode(); code != 125 {
		t.Errorf("exit code %d when the agent has gone", code)
	}
	if r := w.ctl("", "exec", shop, "--", "ls"); r.Code != 125 || !strings.Contains(r.Stderr, "node n1 is not connected") {
		t.Errorf("while the agent is away: %+v", r)
	}
	w.must(w.RestartAgent("n1"))
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "commands run again", func(ctx context.Context) error {
		r, err := w.Ctl(ctx, "", "exec", shop, "--", "true")
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("%+v", r)
		}
		return err
	}))
	last := w.begin("exec", shop, "--", "sh", "-c", "echo begun; sleep 1000")
	w.prints(last, "begun")
	w.must(w.Server.Stop(ctx))
	w.prints(last, "error:")
	if code := last.ExitCode(); code != 125 {
		t.Errorf("exit code %d when the server has stopped", code)
	}
	t.Log(last.Tail(3))
	w.must(w.StartServer(ctx))
	w.ready("n1")
}
