package apiserver

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// elsewhere is a loopback address that distance treats as another machine.
const elsewhere = "127.0.0.77"

// distance is a listener to which connections from elsewhere come from 192.0.2.77.
type distance struct{ net.Listener }

func (d distance) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err == nil && strings.HasPrefix(conn.RemoteAddr().String(), elsewhere+":") {
		conn = distant{conn}
	}
	return conn, err
}

type distant struct{ net.Conn }

func (distant) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 77), Port: 4711} }

// distantNode is a joined node on another machine.
func (c *cluster) distantNode(t *testing.T, node string) *grpc.ClientConn {
	t.Helper()
	creds, err := join.Join(t.Context(), c.joinConfig(t, node))
	if err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(elsewhere)}}
	conn, err := creds.Dial(grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", addr)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// A node's reported address is sent only to the agents that may use it.
func TestIngressAddressesThatArePassedOn(t *testing.T) {
	c := newCluster(t, nil)
	near, far := connectAgent(t, c.node(t, "near"), "near"), connectAgent(t, c.distantNode(t, "far"), "far")
	near.synced()
	far.synced()
	for _, tt := range []struct {
		name, address string
		distant       bool
		toNear, toFar string
		refused       bool
	}{
		{name: "lan", address: "192.0.2.5:8081", toNear: "192.0.2.5:8081", toFar: "192.0.2.5:8081"},
		{name: "distant", address: "192.0.2.6:8081", distant: true, toNear: "192.0.2.6:8081", toFar: "192.0.2.6:8081"},
		{name: "loopback", address: "127.0.0.1:8081", toNear: "127.0.0.1:8081"},
		{name: "liar", address: "127.0.0.1:8080", distant: true, refused: true},
		{name: "metadata", address: "169.254.169.254:80", refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := c.node
			if tt.distant {
				conn = c.distantNode
			}
			agent := connectAgentAt(t, conn(t, tt.name), tt.name, tt.address)
			agent.synced()
			c.create(t, shop(tt.name))
			c.bind(t, tt.name, tt.name)
			placed := func(r *carav1.Routes) bool { return len(r.GetUpserts()) == 1 && r.GetUpserts()[0].GetNode() == tt.name }
			for who, want := range map[*fakeAgent]string{near: tt.toNear, far: tt.toFar} {
				if got := who.routes(placed).GetUpserts()[0].GetIngressAddress(); got != want {
					t.Errorf("an agent is told %q, want %q", got, want)
				}
			}
			n, _ := state.Get[*carav1.Node](c.db.Cache, tt.name)
			condition := api.FindCondition(n.GetStatus().GetConditions(), api.CondIngressReachable)
			if refused := condition.GetStatus() == api.StatusFalse; refused != tt.refused || refused && !strings.Contains(condition.GetMessage(), tt.address) {
				t.Errorf("the node's condition is %v", condition)
			}
			if !tt.refused {
				return
			}
			mended := &carav1.NodeInfo{Platform: "linux/amd64", IngressAddress: "192.0.2.9:8081"}
			if err := agent.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Info: mended}}); err != nil {
				t.Fatal(err)
			}
			for _, who := range []*fakeAgent{near, far} {
				if got := who.routes(placed).GetUpserts()[0].GetIngressAddress(); got != "192.0.2.9:8081" {
					t.Errorf("an agent is told %q after the address was mended", got)
				}
			}
		})
	}
}
