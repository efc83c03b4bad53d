package ingress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/caravanserai/cara/agent/peer"
)

// volumeStall is how long a connection that copies a volume may wait until the other side receives. It may read a large file
// meanwhile. TCP detects another machine that is gone earlier.
const volumeStall = 15 * time.Minute

// portStall is the same for a connection to a port. Config.Ports has a limit of its own.
const portStall = 30 * 24 * time.Hour

// acceptStreams makes a server pass connections of other agents that are not HTTP to Config.Volumes and Config.Ports.
func (i *Ingress) acceptStreams(ctx context.Context, srv *http.Server, peers *tls.Config) {
	srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	accept := func(protocol string, stall time.Duration, serve func(ctx context.Context, node string, conn net.Conn)) {
		if serve == nil {
			return
		}
		peers.NextProtos = append(peers.NextProtos, protocol)
		srv.TLSNextProto[protocol] = func(_ *http.Server, secured *tls.Conn, _ http.Handler) {
			i.internal.clients.changed(secured, http.StateActive) // net/http tells nothing about a connection of another protocol
			if c, ok := secured.NetConn().(*conn); ok {
				c.stall = stall
				if protocol == peer.PortProtocol {
					i.internal.clients.leave(c) // Config.Ports counts it for its client, so that it takes no place of HTTP requests
				}
			}
			state := secured.ConnectionState()
			serve(ctx, i.cfg.Peers.Node(&state), secured)
		}
	}
	accept(peer.VolumeProtocol, volumeStall, i.cfg.Volumes)
	accept(peer.PortProtocol, portStall, i.cfg.Ports)
	peers.NextProtos = append(peers.NextProtos, http2Protocol, "http/1.1")
}
