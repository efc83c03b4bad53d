package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestFiguresHAPush measures how long a push takes until its project runs, with a server alone and with three servers on etcd; `make
// bench-ha` runs it. It asserts no time.
func TestFiguresHAPush(t *testing.T) {
	runs, _ := strconv.Atoi(os.Getenv("CARA_HA_FIGURES"))
	if runs < 1 {
		t.Skip("CARA_HA_FIGURES is the number of runs")
	}
	host := testdocker.Engine(t)
	alone := newWorld(t, options{})
	alone.agent("n1", host, nil)
	alone.timePushes("pebble", 5*runs)
	p := newServers(t, false) // the webhook goes to the second server
	p.third()
	p.agent("n1", host, nil)
	p.timePushes("three members of etcd, three servers", 5*runs)
}

// timePushes pushes new projects one after the other over HTTP, each with a webhook, and waits until each runs.
func (w *testCluster) timePushes(what string, pushes int) {
	w.Helper()
	w.secret("hook", map[string]string{"secret": hookSecret})
	root := w.TempDir()
	url := testgit.ServeHTTP(w.T, root, false).RepoURL("platform")
	repo := testgit.New(w.T, root, "platform")
	repo.PushTo(url)
	w.apply("apiVersion: caravanserai/v1\nkind: Source\nmetadata:\n  name: platform\nspec:\n  git: {url: " + url + ", ref: {branch: main}}\n" +
		"  interval: 1h\n  webhook: {provider: Generic, secretRef: hook}\n")
	took := make([]time.Duration, 0, pushes)
	for i := range pushes + 1 {
		name := w.name(fmt.Sprintf("pushed%d", i))
		repo.Write(name+".yaml", w.web(name, testimage.WebV1))
		repo.Commit("Add " + name)
		at := time.Now()
		repo.Push()
		if status, text := w.deliver("platform", strconv.Itoa(i), "{}", hooks()["Generic"]); status >= 300 {
			w.Fatalf("the webhook is answered %d %s", status, text)
		}
		w.runs(name)
		if i > 0 { // the first one waits for the first look at the repository
			took = append(took, time.Since(at))
		}
	}
	w.Logf("%s: a push over HTTP with a webhook until its project runs: p50 of %d %s, p90 %s", what, pushes,
		percentile(took, 0.5).Round(time.Millisecond), percentile(took, 0.9).Round(time.Millisecond))
}

// runs waits on a watch until a project runs.
func (w *testCluster) runs(name string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	projects, err := w.Projects()
	w.must(err)
	watch, err := projects.WatchProjects(ctx, &carav1.WatchProjectsRequest{})
	w.must(err)
	for {
		e, err := watch.Recv()
		w.must(err)
		if p := e.GetObject(); p.GetMetadata().GetName() == name && testcluster.Runs(p) {
			return
		}
	}
}
