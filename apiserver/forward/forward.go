// Package forward passes connections on between the servers of a cluster. One server is active. The others are standbys and
// pass each connection on to it, so that clients and agents can use the address of any server. A push crosses it if its
// webhook arrives at a standby, or its agent is connected to one.
//
// # Protocol
//
// A standby opens one connection to the active server for each connection of a client: TLS with the ALPN protocol of this package,
// both sides with certificates of the cluster. It begins with one line: a kind, the client's address, and the standby's ID.
//
//	plain   HTTP in plaintext, from a program on the standby's machine
//	secure  HTTP whose TLS the standby has ended, because only it has a certificate for the address that the client has used
//	node    TLS that the standby passes on as it is: from agents, which verify the cluster and prove who they are
//	watch   no client: the active server keeps it open while it serves, and sends one byte when it shuts down
//
// # Invariants
//
//  1. Only the active server offers the protocol. So a connection crosses at most one standby.
//  2. The active server believes a client's address only from a server with a certificate of the cluster. It authenticates
//     the client itself: a standby adds no rights.
//  3. When another server becomes active, the standby closes all connections to the earlier one.
package forward

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
)

// Protocol is the name in ALPN.
const Protocol = "cara-forward/1"

// kind says what a connection carries.
type kind string

const (
	kindPlain  kind = "plain"
	kindSecure kind = "secure"
	kindNode   kind = "node"
	kindWatch  kind = "watch"
)

// nowhere stands for the address where there is no client.
const nowhere = "-"

// maxHeader limits the first line.
const maxHeader = 256

// header is the first line of a connection between servers.
type header struct {
	kind   kind
	client netip.AddrPort
	via    string // the ID of the standby
}

func (h header) write(w io.Writer) error {
	client := nowhere
	if h.client.IsValid() {
		client = h.client.String()
	}
	_, err := fmt.Fprintf(w, "%s %s %s\n", h.kind, client, h.via)
	return err
}

// readHeader reads byte by byte, because what follows belongs to the client.
func readHeader(r io.Reader) (header, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			return header{}, err
		}
		if b[0] == '\n' {
			return parseHeader(string(line))
		}
		if line = append(line, b[0]); len(line) > maxHeader {
			return header{}, errors.New("the first line of a forwarded connection is too long")
		}
	}
}

func parseHeader(line string) (header, error) {
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[2] == "" {
		return header{}, errors.New("the first line of a forwarded connection has no kind, address and server")
	}
	h := header{kind: kind(parts[0]), via: parts[2]}
	switch h.kind {
	case kindWatch:
		return h, nil
	case kindPlain, kindSecure, kindNode:
	default:
		return header{}, fmt.Errorf("a forwarded connection has the kind %.20q, which this version does not know", parts[0])
	}
	var err error
	if h.client, err = netip.ParseAddrPort(parts[1]); err != nil {
		return header{}, errors.New("the first line of a forwarded connection has no address of a client")
	}
	return h, nil
}

// clientOf returns the address of a connection.
func clientOf(conn net.Conn) netip.AddrPort {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
