package dispatch

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sentRoutes keeps what a session sends.
type sentRoutes struct {
	carav1.NodeService_ConnectServer
	wire [][]byte
}

func (s *sentRoutes) Send(m *carav1.ConnectResponse) error {
	encoded, err := proto.Marshal(m)
	s.wire = append(s.wire, encoded)
	return err
}

// TestRoutesInParts: an agent that joins messages gets small ones, any other agent gets one, and both learn the same.
func TestRoutesInParts(t *testing.T) {
	const nodes = 2000
	x := NewRouteIndex()
	for i := range nodes {
		node := fmt.Sprintf("node-%d", i)
		x.setPeer(node, &carav1.Peer{Node: node, NotBefore: timestamppb.New(time.Unix(int64(i), 0))})
	}
	for name, tt := range map[string]struct {
		capabilities []string
		parts        int
	}{
		"a new agent": {[]string{api.CapabilityRoutesInParts}, 4},
		"an old one":  {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var sent sentRoutes
			f := newRouteFeed(&Dispatcher{Routes: x}, &Session{Stream: &sent, capabilities: tt.capabilities})
			for range 2 { // the parts are shared, so sending must not change them
				sent.wire = nil
				msg := &carav1.Routes{Full: true}
				changed := newChanges()
				changed.allNodes = true
				if err := f.send(msg, f.addPeers(msg, &changed)); err != nil {
					t.Fatal(err)
				}
				checkRouteParts(t, sent.wire, tt.parts, x)
			}
		})
	}
}

// checkRouteParts checks that messages have all peers of an index. parts is the least number of messages; 1 is exact.
func checkRouteParts(t *testing.T, wire [][]byte, parts int, x *RouteIndex) {
	t.Helper()
	if len(wire) < parts || parts == 1 && len(wire) != 1 {
		t.Fatalf("%d messages were sent, want %d", len(wire), parts)
	}
	whole := &carav1.Routes{}
	for i, encoded := range wire {
		m := &carav1.ConnectResponse{}
		if err := proto.Unmarshal(encoded, m); err != nil {
			t.Fatal(err)
		}
		if last := i == len(wire)-1; m.GetRoutes().GetMore() == last || m.GetRoutes().GetFull() != last {
			t.Errorf("message %d of %d: more is %v, full is %v", i+1, len(wire), m.GetRoutes().GetMore(), m.GetRoutes().GetFull())
		}
		if parts > 1 && len(encoded) > partSize+64 {
			t.Errorf("message %d has %d bytes", i+1, len(encoded))
		}
		proto.Merge(whole, m.GetRoutes())
	}
	var digest api.PeersDigest
	for _, p := range whole.GetPeers() {
		digest.Toggle(p)
	}
	if len(whole.GetPeers()) != len(x.peers) || digest != x.digest {
		t.Errorf("the agent learns %d of %d peers", len(whole.GetPeers()), len(x.peers))
	}
}
