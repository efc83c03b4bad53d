package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Kinds of packets.
const (
	pktData = iota
	pktFlush
	pktDelim
)

// pktReader reads git's framing: four hex digits of length, then the payload.
type pktReader struct {
	r   *bufio.Reader
	buf []byte
}

func newPktReader(r io.Reader) *pktReader {
	return &pktReader{r: bufio.NewReaderSize(r, 32<<10), buf: make([]byte, 0, 4096)}
}

// next returns one packet. The payload is valid until the next call.
func (p *pktReader) next() (payload []byte, kind int, err error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return nil, 0, fmt.Errorf("read packet: %w", err)
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	switch {
	case err != nil:
		return nil, 0, errors.New("this is not the git protocol")
	case n == 0:
		return nil, pktFlush, nil
	case n < 4:
		return nil, pktDelim, nil
	case n > 65520:
		return nil, 0, errors.New("packet is longer than the git protocol allows")
	}
	n -= 4
	if cap(p.buf) < int(n) {
		p.buf = make([]byte, n, 65520)
	}
	p.buf = p.buf[:n]
	if _, err := io.ReadFull(p.r, p.buf); err != nil {
		return nil, 0, fmt.Errorf("read packet: %w", err)
	}
	if said, ok := bytes.CutPrefix(p.buf, []byte("ERR ")); ok {
		return nil, 0, &remoteError{strings.TrimSpace(string(said))}
	}
	return p.buf, pktData, nil
}

// line returns one packet as text.
func (p *pktReader) line() (string, int, error) {
	payload, kind, err := p.next()
	return strings.TrimSuffix(string(payload), "\n"), kind, err
}

// remoteError is an error message from the server.
type remoteError struct{ said string }

func (e *remoteError) Error() string { return "the server says: " + e.said }

// pkt frames lines. "" is a flush packet, and delimiter a delimiter packet.
func pkt(lines ...string) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		switch l {
		case "":
			b.WriteString("0000")
		case delimiter:
			b.WriteString("0001")
		default:
			fmt.Fprintf(&b, "%04x%s\n", len(l)+5, l)
		}
	}
	return b.Bytes()
}

const delimiter = "\x00delimiter"

// packStream is the pack inside the side-band packets of a fetch.
type packStream struct {
	p    *pktReader
	rest []byte
	done bool
}

func (s *packStream) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.done {
			return 0, io.EOF
		}
		payload, kind, err := s.p.next()
		if err != nil {
			return 0, err
		}
		if kind != pktData {
			s.done = true
			continue
		}
		if len(payload) == 0 {
			continue
		}
		switch payload[0] {
		case 1:
			s.rest = payload[1:]
		case 2: // progress
		case 3:
			return 0, &remoteError{strings.TrimSpace(string(payload[1:]))}
		default:
			return 0, errors.New("packet of an unknown band")
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
