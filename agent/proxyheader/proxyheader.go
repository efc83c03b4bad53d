// Package proxyheader reads the header of the PROXY protocol, versions 1 and 2, with which a load balancer says which client
// it passes on. The listeners of an agent ask it before anything else of a connection is read.
//
// Invariants:
//
//   - Only the header of a connection from a Senders address is believed. For all others it is data like any other.
//   - Read takes no byte after the header, so the connection is used as if it had begun there.
//   - A header has at most maxHeader bytes. The time is limited by the deadline of the caller.
//
// The protocol is described in https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.
package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	"github.com/pires/go-proxyproto"
)

// Senders are the networks of load balancers that send a header on each connection.
type Senders []netip.Prefix

// MaxSenders is how many networks there can be.
const MaxSenders = 100

// Parse parses networks.
func Parse(list []string) (Senders, error) {
	if len(list) > MaxSenders {
		return nil, fmt.Errorf("has %d networks, at most %d are allowed; combine them into larger ones", len(list), MaxSenders)
	}
	var s Senders
	for _, entry := range list {
		p, err := netip.ParsePrefix(entry)
		switch {
		case err != nil || p.Addr().Is4In6():
			return nil, fmt.Errorf("%q: want a network such as 10.0.0.0/24, or 192.0.2.7/32 for one address", entry)
		case p != p.Masked():
			return nil, fmt.Errorf("%q: the address has bits beyond the prefix; did you mean %s or %s?", entry, p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		case p.Bits() == 0:
			return nil, fmt.Errorf("%q: it has every address, so each client could choose which address counts as its own; list the addresses of the load balancers", entry)
		}
		s = append(s, p)
	}
	return s, nil
}

// Has reports whether the connections of an address begin with a header.
func (s Senders) Has(of net.Addr) bool {
	tcp, ok := of.(*net.TCPAddr)
	if !ok {
		return false
	}
	address := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(s, func(p netip.Prefix) bool { return p.Contains(address) })
}

const (
	// v1 and v2 are how the headers begin. Both have the same length here, and no header is shorter.
	v1 = "PROXY "
	v2 = "\r\n\r\n\x00\r\nQUIT\n"
	// maxLine is the longest header of version 1, from the specification.
	maxLine = 107
	// maxHeader is the longest header of version 2. Its extensions can contain a client's certificate.
	maxHeader = 4096
)

// Errors of a header that is not usable.
var (
	ErrNone    = errors.New("there is no PROXY header")
	ErrTooLong = errors.New("the PROXY header is too long")
	ErrFamily  = errors.New("the PROXY header names no client with an IP address and TCP")
)

// Read reads a header. It returns the address of the client, or nil if the sender speaks for itself (LOCAL, UNKNOWN), for
// example to check whether the agent is alive. Then the address of the connection counts. An io.EOF means that nothing was sent.
func Read(r io.Reader) (*net.TCPAddr, error) {
	raw, err := frame(r)
	if err != nil {
		return nil, err
	}
	header, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the PROXY header: %w", err)
	case header.Command.IsLocal():
		return nil, nil
	}
	client, ok := header.SourceAddr.(*net.TCPAddr)
	if !ok {
		return nil, ErrFamily
	}
	return client, nil
}

// frame returns the bytes of a header. It reads only what every header has at that point.
func frame(r io.Reader) ([]byte, error) {
	raw := make([]byte, len(v2), maxLine)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	switch {
	case string(raw) == v2:
		return frameV2(r, raw)
	case bytes.HasPrefix(raw, []byte(v1)):
		return frameV1(r, raw)
	}
	return nil, ErrNone
}

// frameV1 reads the rest of the line, byte by byte, because nothing says how long it is.
func frameV1(r io.Reader, raw []byte) ([]byte, error) {
	var next [1]byte
	for next[0] != '\n' {
		if len(raw) == maxLine {
			return nil, ErrTooLong
		}
		if _, err := io.ReadFull(r, next[:]); err != nil {
			return nil, noEnd(err)
		}
		raw = append(raw, next[0])
	}
	return raw, nil
}

func frameV2(r io.Reader, raw []byte) ([]byte, error) {
	start := len(v2) + 4 // version, family and length
	raw = raw[:start]
	if _, err := io.ReadFull(r, raw[len(v2):]); err != nil {
		return nil, noEnd(err)
	}
	total := start + int(binary.BigEndian.Uint16(raw[start-2:]))
	if total > maxHeader {
		return nil, ErrTooLong
	}
	raw = append(raw, make([]byte, total-start)...)
	if _, err := io.ReadFull(r, raw[start:]); err != nil {
		return nil, noEnd(err)
	}
	return raw, nil
}

// noEnd makes an end in the middle of a header different from a connection on which nothing was sent.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
