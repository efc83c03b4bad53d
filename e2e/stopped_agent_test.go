package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestStoppedAgent: a request to a node whose agent is stopped is given up. The first request for a host whose project moves waits until
// the new node runs it.
func TestStoppedAgent(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	metrics, err := testcluster.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, options{})
	w.agent("n1", host, nil)
	w.agent("n2", host, nil, "--metrics-listen", metrics)
	w.agent("n3", host, nil)
	w.succeeds("cordon", "n2")
	w.succeeds("cordon", "n3")
	stays, moves := w.name("stays"), w.name("moves")
	w.apply(w.web(stays, testimage.WebV1) + "---\n" + w.web(moves, testimage.WebV1))
	w.running(stays, moves)
	w.answers("n2", stays+".test", "/", http.StatusOK, "web v1") // and keeps a connection

	w.must(w.Agents["n1"].Pause())
	ctx, cancel := w.patience()
	defer cancel()
	status, text, err := visit(ctx, w.ingress["n2"], stays+".test", "/")
	w.must(w.Agents["n1"].Resume())
	if err != nil || status != http.StatusGatewayTimeout || !strings.Contains(text, `node "n1", whose agent does not answer any more`) {
		t.Errorf("%d %q, %v", status, text, err)
	}
	w.answers("n2", stays+".test", "/", http.StatusOK, "web v1")
	w.ready("n1")

	w.succeeds("uncordon", "n3")
	drained := make(chan testcluster.Result, 1)
	w.must(w.Agents["n3"].Pause()) // so that the move takes a while
	go func() {
		r, _ := w.Ctl(ctx, "", "drain", "n1")
		drained <- r
	}()
	w.until(moves, "is assigned to n3", func(p *carav1.Project) bool { return p.GetStatus().GetNodeRef() == "n3" })
	answer := make(chan error, 1)
	go func() {
		status, text, err := visit(context.WithoutCancel(ctx), w.ingress["n2"], moves+".test", "/")
		if err == nil && (status != http.StatusOK || !strings.Contains(text, "web v1")) {
			err = fmt.Errorf("%d %q", status, text)
		}
		answer <- err
	}()
	w.figures(metrics, "the request waits", fmt.Sprintf(`cara_ingress_requests_in_flight{from="client",project="%s",service="web"} 1`, moves))
	w.must(w.Agents["n3"].Resume())
	if err := <-answer; err != nil {
		t.Errorf("the first request for a host whose project moves: %v", err)
	}
	if r := <-drained; r.Code != 0 {
		t.Errorf("drain: %+v", r)
	}
}
