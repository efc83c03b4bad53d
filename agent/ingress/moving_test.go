package ingress

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestNewHostOfAMove: the first request for a host waits too if the server says that the project moves. A project that just does not
// run is answered for at once.
func TestNewHostOfAMove(t *testing.T) {
	m := newMoving(t, time.Minute, echoBody)
	learn := func(r *carav1.Route) {
		r.Host, r.Project, r.Service, r.Port = "a.b", "p", "w", m.port
		m.first.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{r}})
	}
	m.first.Apply(&carav1.Routes{Full: true})
	learn(&carav1.Route{})
	if status, _, _, err := m.send(""); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("no move: %d, %v", status, err)
	}
	for _, node := range []string{"", "n1"} { // it has left its node, or is stopped there while its last data is copied
		m.up.Store(false)
		m.first.Apply(&carav1.Routes{Full: true})
		learn(&carav1.Route{Node: node, Moving: true})
		var got errgroup.Group
		got.Go(func() error {
			status, text, _, err := m.send("")
			if status != http.StatusOK || text != "GET " {
				return errors.Join(err, fmt.Errorf("on %q: %d %q", node, status, text))
			}
			return nil
		})
		m.waits(1)
		m.up.Store(true)
		m.at("n2")
		if err := got.Wait(); err != nil {
			t.Error(err)
		}
	}
	learn(&carav1.Route{}) // it has moved, and has been stopped since
	if m.first.table.Load().hosts["a.b"][0].Moving {
		t.Error("it still moves")
	}
}
