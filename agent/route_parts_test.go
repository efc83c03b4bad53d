package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestRouteParts: parts become one message, and each message is joined by itself.
func TestRouteParts(t *testing.T) {
	var parts routeParts
	peer := func(node string) *carav1.Peer { return &carav1.Peer{Node: node} }
	for i, step := range []struct{ part, whole *carav1.Routes }{
		{&carav1.Routes{RemovedHosts: []string{"alone.test"}}, &carav1.Routes{RemovedHosts: []string{"alone.test"}}},
		{&carav1.Routes{More: true, Peers: []*carav1.Peer{peer("a")}}, nil},
		{&carav1.Routes{More: true, Peers: []*carav1.Peer{peer("b")}, RemovedHosts: []string{"gone.test"}}, nil},
		{
			&carav1.Routes{Full: true, Peers: []*carav1.Peer{peer("c")}},
			&carav1.Routes{Full: true, Peers: []*carav1.Peer{peer("a"), peer("b"), peer("c")}, RemovedHosts: []string{"gone.test"}},
		},
		{&carav1.Routes{More: true, Peers: []*carav1.Peer{peer("d")}}, nil},
		{&carav1.Routes{}, &carav1.Routes{Peers: []*carav1.Peer{peer("d")}}},
	} {
		whole, err := parts.join(step.part)
		if diff := cmp.Diff(step.whole, whole, protocmp.Transform()); diff != "" || err != nil {
			t.Errorf("message %d: %v %s", i, err, diff)
		}
	}
	parts.size = maxRouteParts
	if _, err := parts.join(&carav1.Routes{More: true, RemovedHosts: []string{"a.test"}}); err == nil {
		t.Error("the parts have no limit")
	}
}
