package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// VolumeProtocol is the TLS application protocol of a connection that copies a volume. The listening agent distinguishes it
// from forwarded HTTP by the handshake alone, so no request of a client can become such a connection.
const VolumeProtocol = "cara-volume/1"

// dialPatience is how long a connection may take to open. It leaves time for another attempt, to another node perhaps, while a client
// waits for a port.
const dialPatience = 5 * time.Second

// PortProtocol is the TLS application protocol of a connection that carries a client's connection to a port.
const PortProtocol = "cara-port/1"

// DialVolumes connects to a node's agent to copy a volume.
func (t *TLS) DialVolumes(ctx context.Context, node, address string) (net.Conn, error) {
	return t.dial(ctx, node, address, VolumeProtocol, "volumes")
}

// DialPort connects to a node's agent to pass a client's connection to a port.
func (t *TLS) DialPort(ctx context.Context, node, address string) (*tls.Conn, error) {
	return t.dial(ctx, node, address, PortProtocol, "connections to ports")
}

func (t *TLS) dial(ctx context.Context, node, address, protocol, what string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	raw, err := Connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("reach the agent of node %s at %s: %w", node, address, err)
	}
	config := t.Dial(node)
	config.NextProtos = []string{protocol}
	secured := tls.Client(raw, config)
	err = secured.HandshakeContext(ctx)
	if err == nil && secured.ConnectionState().NegotiatedProtocol != protocol {
		err = fmt.Errorf("it does not accept %s; update cara-agent there", what)
	}
	if err != nil {
		_ = raw.Close() // it is abandoned
		return nil, fmt.Errorf("reach the agent of node %s at %s: %w", node, address, err)
	}
	return secured, nil
}
