package docs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestPreviews runs the recipes of docs/previews.md as the git servers would, against a repository, a server and an engine that
// are real: a pull request is opened, pushed to again, and closed.
func TestPreviews(t *testing.T) {
	host := testdocker.Engine(t)
	testneed.Program(t, "git", "git")
	testdocker.Images(t, host, testimage.WebV1, testimage.WebV2)
	p := newPreviews(t, host)
	for i, recipe := range []string{".github/workflows/preview.yaml", ".gitlab-ci.yml", ".gitea/workflows/preview.yaml", ".forgejo/workflows/preview.yaml"} {
		t.Run(recipe, func(t *testing.T) { p.recipe(t, recipe, 41+i) })
	}
}

// previews is the machine of a pipeline, with a checkout of an application's repository.
type previews struct {
	*guide
	*testcluster.Cluster
	files map[string]string // of the page
	repo  string            // URL of the manifests' repository
	token string
}

func newPreviews(t *testing.T, host string) *previews {
	root := t.TempDir()
	git := testgit.ServeHTTP(t, root, false)
	repo := testgit.New(t, root, "previews")
	repo.Write("README.md", "The manifests of previews\n")
	repo.Commit("Begin")
	repo.Push()
	p := &previews{
		guide: newGuide(t, host, "https://git.example.com/team/previews.git", git.RepoURL("previews"), "port: 80}", "port: 8080}"),
		files: map[string]string{}, repo: git.RepoURL("previews"),
	}
	p.start(host)
	for _, b := range p.blocks("previews.md") {
		if b.file != "" {
			p.files[b.file] = p.replace.Replace(b.text)
		}
		for _, c := range b.commands {
			if !p.command(c) {
				t.FailNow()
			}
		}
	}
	for _, name := range []string{"cara/preview.sh", "cara/preview.yaml"} {
		if err := os.MkdirAll(filepath.Join(p.home, "cara"), 0o755); err != nil {
			t.Fatal(err)
		}
		p.write(name, p.files[name])
	}
	token, err := os.ReadFile(filepath.Join(p.home, "ci.token"))
	if err != nil {
		t.Fatal(err)
	}
	p.token = strings.TrimSpace(string(token))
	return p
}

// start starts a server and an agent, for which the guide's environment has a context.
func (p *previews) start(host string) {
	cluster, err := testcluster.New(testcluster.Config{Dir: p.TempDir(), Bin: p.bin})
	if err != nil {
		p.Fatal(err)
	}
	p.Cluster = cluster
	p.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.Context()), patience)
		defer cancel()
		if p.Failed() {
			p.Log(cluster.Dump(ctx))
		}
		if err := cluster.Sweep(ctx, host); err != nil {
			p.Error(err)
		}
		if err := cluster.Close(ctx); err != nil {
			p.Error(err)
		}
	})
	if err := cluster.StartServer(p.Context()); err != nil {
		p.Fatal(err)
	}
	if _, err := cluster.StartAgent(testcluster.Agent{Name: "n1", DockerHost: host, Pool: "10.215.0.0/16"}); err != nil {
		p.Fatal(err)
	}
	p.env = append(p.env, "CARA_SERVER="+cluster.URL(), "CARA_TOKEN_FILE="+filepath.Join(cluster.DataDir(), "admin.token"))
}

// event is what a git server tells a recipe.
type event struct {
	number, action, image string
}

func (p *previews) recipe(t *testing.T, file string, number int) {
	name := fmt.Sprintf("preview-%d", number)
	e := event{number: fmt.Sprint(number), action: "opened", image: testimage.WebV1}
	out, started := p.job(t, file, e), time.Now()
	if want := "http://" + name; !strings.Contains(out, "Preview") || !strings.Contains(out, want) {
		t.Errorf("the pipeline prints %q, without %s", out, want)
	}
	before := p.runs(t, name, testimage.WebV1)
	err := testcluster.WaitFor(t.Context(), "another second", func(context.Context) error {
		if time.Since(started) < time.Second { // expireAt is a whole second
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	e.action, e.image = "synchronize", testimage.WebV2
	p.job(t, file, e)
	after := p.runs(t, name, testimage.WebV2)
	if !after.GetSpec().GetExpireAt().AsTime().After(before.GetSpec().GetExpireAt().AsTime()) {
		t.Errorf("the second push leaves the end at %s", before.GetSpec().GetExpireAt().AsTime())
	}
	e.action = "closed"
	p.job(t, file, e)
	projects, err := p.Projects()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := projects.GetProject(t.Context(), &carav1.GetRequest{Name: name}); err == nil {
		t.Errorf("%s is still there after the pipeline of a closed pull request", name)
	}
}

// runs checks that a project runs an image now: the pipeline has waited for it.
func (p *previews) runs(t *testing.T, name, image string) *carav1.Project {
	t.Helper()
	projects, err := p.Projects()
	if err != nil {
		t.Fatal(err)
	}
	got, err := projects.GetProject(t.Context(), &carav1.GetRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if !testcluster.Runs(got) || got.GetSpec().GetServices()[0].GetImage() != image {
		t.Errorf("%s does not run %s: %s", name, image, testcluster.Summary(got))
	}
	return got
}

// job runs the commands that a recipe has for an event, and returns what they print.
func (p *previews) job(t *testing.T, file string, e event) string {
	t.Helper()
	env, script := actionsJob(t, p.files[file], e)
	if file == ".gitlab-ci.yml" {
		env, script = gitlabJob(t, p.files[file], e)
	}
	for k, v := range env {
		switch k {
		case "PREVIEWS_REPO":
			v = p.repo
		case "IMAGE":
			v = e.image
		}
		env[k] = v
	}
	env["CARA_SERVER"], env["CARA_TOKEN"] = p.URL(), p.token
	env["GITHUB_STEP_SUMMARY"] = filepath.Join(t.TempDir(), "summary")
	g := *p.guide
	g.env = append([]string{}, p.env...)
	for k, v := range env {
		g.env = append(g.env, k+"="+v)
	}
	g.env = append(g.env, "CARA_TOKEN_FILE=")
	out, code, err := g.shell(t.Context(), "set -e\n"+script)
	if err != nil || code != 0 {
		t.Fatalf("%s, %s: exit code %d, %v\n%s", file, e.action, code, err, out)
	}
	if strings.Contains(out, p.token) {
		t.Error("the pipeline prints its token")
	}
	return out
}

// actionsJob returns the environment and the commands of the steps of a workflow whose condition holds.
func actionsJob(t *testing.T, text string, e event) (env map[string]string, script string) {
	var w struct {
		Jobs map[string]struct {
			Env   map[string]string
			Steps []struct{ If, Run, Uses string }
		}
	}
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	job := w.Jobs["preview"]
	for k, v := range job.Env {
		job.Env[k] = expand(t, v, e)
	}
	for _, s := range job.Steps {
		if condition := regexp.MustCompile(`^\w+\.event\.action (==|!=) 'closed'$`).FindStringSubmatch(s.If); condition != nil {
			if (condition[1] == "==") != (e.action == "closed") {
				continue
			}
		} else if s.If != "" {
			t.Fatalf("the test does not understand the condition %q", s.If)
		}
		script += s.Run + "\n"
	}
	return job.Env, script
}

// expand replaces the expressions of a workflow. An unknown one fails the test.
func expand(t *testing.T, text string, e event) string {
	return regexp.MustCompile(`\$\{\{ (.*?) \}\}`).ReplaceAllStringFunc(text, func(expression string) string {
		_, path, _ := strings.Cut(strings.Trim(expression, "${} "), ".")
		switch path {
		case "event.number":
			return e.number
		case "event.pull_request.head.sha", "PREVIEWS_TOKEN", "CARA_SERVER", "CARA_TOKEN":
			return "replaced"
		}
		t.Fatalf("the test does not know %s", expression)
		return ""
	})
}

// gitlabJob returns the variables and the commands of the job for an event.
func gitlabJob(t *testing.T, text string, e event) (env map[string]string, script string) {
	type job struct {
		Variables map[string]string
		Script    []string
	}
	var jobs map[string]job
	if err := yaml.Unmarshal([]byte(text), &jobs); err != nil {
		t.Fatal(err)
	}
	name := "preview"
	if e.action == "closed" {
		name = "stop-preview"
	}
	env = map[string]string{}
	for k, v := range jobs[".preview"].Variables {
		env[k] = strings.ReplaceAll(v, "$CI_MERGE_REQUEST_IID", e.number)
	}
	return env, strings.Join(jobs[name].Script, "\n")
}
