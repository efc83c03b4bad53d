package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestRoutesOnDemand: an agent asks the server for a host at the first request, and serves it from then on, also while the server
// is away. An entry has all hosts.
func TestRoutesOnDemand(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	metrics, err := testcluster.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, options{})
	w.agent("n1", host, nil)
	w.agent("n2", host, nil, "--metrics-listen", metrics)
	w.agent("n3", host, nil, "--ingress-all")
	for _, node := range []string{"n2", "n3"} {
		if r := w.ctl("", "cordon", node); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	w.says("describe", w.ctl("", "describe", "node", "n3").Stdout, "entry: has the routes of all hosts")
	first, second, later := w.name("first"), w.name("second"), w.name("later")
	w.apply(w.web(first, testimage.WebV1) + "---\n" + w.web(second, testimage.WebV1))
	w.running(first, second)
	once := func(node, project string, want int) {
		t.Helper()
		if status, _ := w.location(node, project+".test", "/"); status != want {
			t.Errorf("%s answers %d for %s, want %d", node, status, project, want)
		}
	}
	once("n1", first, http.StatusOK)
	once("n2", first, http.StatusOK)
	once("n2", later, http.StatusNotFound)
	w.answers("n3", second+".test", "/", 200, "web v1")
	w.figures(metrics, "the questions are counted", `cara_ingress_host_questions_total{result="Known"} 1`, `cara_ingress_host_questions_total{result="Unknown"} 1`, "cara_ingress_hosts 1")

	// A host that did not exist is served as soon as it does.
	w.apply(w.web(later, testimage.WebV1))
	w.running(later)
	w.answers("n2", later+".test", "/", 200, "web v1")

	w.stored("n2", "routes.json", first+".test")
	w.crash()
	once("n1", second, http.StatusOK) // its own project
	once("n2", first, http.StatusOK)
	once("n2", later, http.StatusOK)
	once("n3", second, http.StatusOK)
	w.answers("n2", second+".test", "/", 503, "does not know the host", "cannot ask the server now")
	w.must(w.Agents["n2"].Kill())
	w.must(w.RestartAgent("n2"))
	w.answers("n2", first+".test", "/", 200, "web v1")
	w.start()
	w.ready("n2")
	w.answers("n2", second+".test", "/", 200, "web v1")
	w.answers("n2", "nobody.test", "/", 404, "No project claims the host")
	w.sub("strangers", func(w *testCluster) { w.strangers("n2") })
}

// strangers asks an agent for many hosts that no project claims. Neither the agent nor the server keeps more than their limits.
func (w *testCluster) strangers(node string) {
	w.Helper()
	const clients = 32 // fewer than may wait for one address
	count := often(100_000, 3_200)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	ask := func(from, to int) error {
		for n := from; n < to; n++ {
			req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "http://"+w.ingress[node], http.NoBody)
			if err != nil {
				return err
			}
			req.Host = fmt.Sprintf("stranger%06d.test", n)
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(resp.Body)
			if err := errors.Join(err, resp.Body.Close()); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusNotFound {
				return fmt.Errorf("%s for %s: %.200s", resp.Status, req.Host, text)
			}
		}
		return nil
	}
	w.must(ask(0, 100))
	programs := map[string]*testcluster.Process{"agent": w.Agents[node], "server": w.Server}
	before := map[string]int64{}
	for name, p := range programs {
		before[name] = w.usage(p).Resident
	}
	var all errgroup.Group
	for n := range clients {
		all.Go(func() error { return ask(100+n*count/clients, 100+(n+1)*count/clients) })
	}
	w.must(all.Wait())
	for name, p := range programs {
		now := w.usage(p).Resident
		w.Logf("%d hosts that nobody claims: the %s has %d MiB, before %d", count, name, now>>20, before[name]>>20)
		if now > before[name]+32<<20 {
			w.Errorf("the %s keeps too much", name)
		}
	}
}
