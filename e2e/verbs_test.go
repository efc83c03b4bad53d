package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testgit"
)

// project is a manifest with this spec, written from its first column on.
func project(name, spec string) string {
	return "apiVersion: caravanserai/v1\nkind: Project\nmetadata:\n  name: " + name + "\nspec:\n" + indent(spec)
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		b.WriteString("  " + line)
	}
	return b.String()
}

// web is a project of one web service that answers to the host name.test.
func (w *testCluster) web(name, image string) string {
	return project(name, `
services:
- name: web
  image: `+image+`
ingress:
- name: web
  host: `+name+`.test
  target: {service: web, port: 8080}`)
}

// repository is an empty one behind git http-backend, with a source that follows its branch main.
func (w *testCluster) repository(source string, more ...string) *testgit.TestRepo {
	w.Helper()
	root := w.TempDir()
	server := testgit.ServeHTTP(w.T, root, false)
	repo := testgit.New(w.T, root, source)
	repo.PushTo(server.RepoURL(source))
	w.source(source, "url: "+server.RepoURL(source), more...)
	return repo
}

// source registers a repository with caractrl. git is what stands within `git: {}` beside the ref, more are further
// lines of its spec.
func (w *testCluster) source(name, git string, more ...string) {
	w.Helper()
	w.apply("apiVersion: caravanserai/v1\nkind: Source\nmetadata:\n  name: " + name + "\nspec:\n" +
		"  git: {" + git + ", ref: {branch: main}}\n  interval: 1s\n" + indent(strings.Join(more, "\n")))
}

// push commits the whole work tree, pushes it, and waits until the source has applied it, with or without success.
func (w *testCluster) push(repo *testgit.TestRepo, message string) (revision string) {
	w.Helper()
	revision = repo.Commit(message)
	repo.Push()
	w.untilSource(repo.Name, "has seen "+revision[:7], func(s *carav1.Source) bool {
		return s.GetStatus().GetAttemptedRevision() == revision
	})
	return revision
}

// apply sends manifests as a person does, and wants them accepted.
func (w *testCluster) apply(manifests string) {
	w.Helper()
	if r := w.ctl(manifests, "apply", "-f", "-"); r.Code != 0 {
		w.Fatalf("caractrl apply: exit code %d\n%s%s\n%s", r.Code, r.Stdout, r.Stderr, manifests)
	}
}

// ctl runs caractrl.
func (w *testCluster) ctl(stdin string, args ...string) testcluster.Result {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	r, err := w.Ctl(ctx, stdin, args...)
	w.must(err)
	return r
}

// running waits until each of these projects is Running and ready.
func (w *testCluster) running(names ...string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitRunning(ctx, names...))
}

// gone waits until there is no such project, and the engines hold nothing of it.
func (w *testCluster) gone(names ...string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitGone(ctx, names...))
	for _, host := range w.engines {
		for _, name := range names {
			w.must(w.AwaitNothing(ctx, host, name))
		}
	}
}

// until waits for what cond says of a project.
func (w *testCluster) until(name, what string, cond func(*carav1.Project) bool) *carav1.Project {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	p, err := w.AwaitProject(ctx, name, what, cond)
	w.must(err)
	return p
}

// untilSource waits for what cond says of a source.
func (w *testCluster) untilSource(name, what string, cond func(*carav1.Source) bool) *carav1.Source {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	s, err := w.AwaitSource(ctx, name, what, cond)
	w.must(err)
	return s
}

// failed waits until a project is Failed, and wants its reason and these words in its message.
func (w *testCluster) failed(name, reason string, words ...string) {
	w.Helper()
	p := w.until(name, "is Failed", func(p *carav1.Project) bool { return p.GetStatus().GetPhase() == api.PhaseFailed })
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase)
	if c.GetReason() != reason {
		w.Errorf("project %s failed for the reason %s, want %s", name, c.GetReason(), reason)
	}
	w.says("project "+name, c.GetMessage(), words...)
}

// write puts a file on this machine.
func (w *testCluster) write(path, text string) {
	w.Helper()
	w.must(os.WriteFile(path, []byte(text), 0o600))
}

// says wants each of words in a text.
func (w *testCluster) says(who, text string, words ...string) {
	w.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			w.Errorf("%s says\n%s\nwithout %q", who, text, word)
		}
	}
}

// condition is a project's or a source's.
func condition(conditions []*carav1.Condition, typ string) *carav1.Condition {
	return api.FindCondition(conditions, typ)
}

// project returns one as it is now.
func (w *testCluster) project(name string) *carav1.Project {
	w.Helper()
	client, err := w.Projects()
	w.must(err)
	p, err := client.GetProject(w.Context(), &carav1.GetRequest{Name: name})
	w.must(err)
	return p
}

// containers are the ids of a project's containers on an engine, by service. The stopped container of the version before
// does not count: an update keeps it until the new one has proved itself.
func (w *testCluster) containers(host, project string) map[string]string {
	w.Helper()
	held, err := w.Held(w.Context(), host, project)
	w.must(err)
	ids, runs := map[string]string{}, map[string]bool{}
	for _, c := range held.Containers {
		if c.State == container.StateRunning {
			runs[c.Labels[api.LabelService]] = true
		}
	}
	for _, c := range held.Containers {
		service := c.Labels[api.LabelService]
		if c.State == container.StateExited && runs[service] {
			continue
		}
		if ids[service] != "" {
			w.Errorf("service %s of %s has two containers:\n%s", service, project, held)
		}
		ids[service] = c.ID
	}
	return ids
}

// startTimes are when a project's containers were started last, by service.
func (w *testCluster) startTimes(host, project string) map[string]string {
	w.Helper()
	docker, err := testdocker.Client(host)
	w.must(err)
	defer docker.Close()
	times := map[string]string{}
	for service, id := range w.containers(host, project) {
		c, err := docker.ContainerInspect(w.Context(), id)
		w.must(err)
		times[service] = c.State.StartedAt
	}
	return times
}

// stopBehindBack ends a container as a crash would.
func (w *testCluster) stopBehindBack(host, id string) {
	w.Helper()
	docker, err := testdocker.Client(host)
	w.must(err)
	defer docker.Close()
	w.must(docker.ContainerKill(w.Context(), id, "KILL"))
}

// state of a container, as the engine has it.
func (w *testCluster) state(host, id string) *container.State {
	w.Helper()
	docker, err := testdocker.Client(host)
	w.must(err)
	defer docker.Close()
	found, err := docker.ContainerInspect(w.Context(), id)
	w.must(err)
	return found.State
}

// answers waits until an agent's ingress answers for a host with this status and all these words, and returns the page.
func (w *testCluster) answers(node, host, path string, status int, words ...string) string {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	var page string
	w.must(testcluster.WaitFor(ctx, fmt.Sprintf("http://%s%s at %s answers %d %q", host, path, node, status, words),
		func(ctx context.Context) error {
			got, text, err := visit(ctx, w.ingress[node], host, path)
			if err != nil {
				return err
			}
			page = text
			for _, word := range words {
				if !strings.Contains(text, word) {
					err = errors.New("the words are missing")
				}
			}
			if got != status || err != nil {
				return fmt.Errorf("it is %d %.200q", got, text)
			}
			return nil
		}))
	return page
}

func visit(ctx context.Context, address, host, path string) (status int, page string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text), err
}
