package ingress

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"

	"github.com/caravanserai/cara/agent/peer"
)

// volumeStall is how long a connection that copies a volume may wait until the other side receives. It may read a large file
// meanwhile. TCP detects another machine that is gone earlier.
const volumeStall = 15 * time.Minute

// acceptVolumes makes a server pass connections of other agents that copy a volume to Config.Volumes.
func (i *Ingress) acceptVolumes(ctx context.Context, srv *http.Server, peers *tls.Config) {
	if i.cfg.Volumes == nil || peers == nil {
		return
	}
	peers.NextProtos = []string{peer.VolumeProtocol, "http/1.1"}
	srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		peer.VolumeProtocol: func(_ *http.Server, secured *tls.Conn, _ http.Handler) {
			i.internal.clients.changed(secured, http.StateActive) // net/http tells nothing about a connection of another protocol
			if c, ok := secured.NetConn().(*conn); ok {
				c.stall = volumeStall
			}
			state := secured.ConnectionState()
			i.cfg.Volumes(ctx, i.cfg.Peers.Node(&state), secured)
		},
	}
}
