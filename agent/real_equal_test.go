package agent_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testequal"
)

// assigned is what the server has given to the agent's node.
func (s *server) assigned(context.Context) ([]*carav1.Project, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*carav1.Project
	for _, p := range s.projects {
		p = proto.CloneOf(p)
		p.Status.NodeRef = "n1"
		out = append(out, p)
	}
	return out, nil
}

// equal checks the state after every fault: Docker matches the assignments, and nothing else has our labels. It returns the
// ids of the containers by `project.service`.
func (r *onDocker) equal(t testing.TB) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ids, err := testequal.Await(ctx, testequal.Node{Host: r.host, Cluster: r.cluster, Name: r.cfg.NodeName}, r.assigned)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// keeps checks that these containers still exist.
func keeps(t testing.TB, before, after map[string]string, services ...string) {
	t.Helper()
	for _, s := range services {
		if before[s] == "" || before[s] != after[s] {
			t.Errorf("the container of %s was %.12s and is %.12s: it had no reason to be replaced", s, before[s], after[s])
		}
	}
}
