package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// VolumeProtocol is the TLS application protocol of a connection that copies a volume. The listening agent distinguishes it
// from forwarded HTTP by the handshake alone, so no request of a client can become such a connection.
const VolumeProtocol = "cara-volume/1"

// dialPatience is how long a connection may take.
const dialPatience = 10 * time.Second

// DialVolumes connects to a node's agent to copy a volume.
func (t *TLS) DialVolumes(ctx context.Context, node, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	raw, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("reach the agent of node %s at %s: %w", node, address, err)
	}
	config := t.Dial(node)
	config.NextProtos = []string{VolumeProtocol}
	secured := tls.Client(raw, config)
	err = secured.HandshakeContext(ctx)
	if err == nil && secured.ConnectionState().NegotiatedProtocol != VolumeProtocol {
		err = errors.New("it does not accept volumes; update cara-agent there")
	}
	if err != nil {
		_ = raw.Close() // it is abandoned
		return nil, fmt.Errorf("reach the agent of node %s at %s: %w", node, address, err)
	}
	return secured, nil
}
