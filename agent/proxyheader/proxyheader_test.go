package proxyheader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// version2 is a header of version 2 with a command, a family and what follows.
func version2(command, family byte, body string) string {
	header := append([]byte(v2), 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(header, uint16(len(body)))) + body
}

const (
	local, proxied = 0, 1
	tcp4, tcp6     = 0x11, 0x21
	addresses4     = "\xc0\x00\x02\x01" + "\x0a\x00\x00\x01" + "\x30\x39" + "\x01\xbb" // 192.0.2.1:12345 to 10.0.0.1:443
)

var addresses6 = "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + strings.Repeat("\x00", 15) + "\x01" + "\x30\x39" + "\x01\xbb"

func TestRead(t *testing.T) {
	mapped := strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x01"
	extension := func(size int) string { // a TLV that fills the header up to a size
		n := size - len(v2) - 4 - len(addresses4) - 3
		return addresses4 + "\x04" + string([]byte{byte(n >> 8), byte(n)}) + strings.Repeat("x", n)
	}
	tests := map[string]struct {
		header, client string // "" is the sender itself
		err            error  // errAny: some error
	}{
		"TCP4":                      {"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n", "192.0.2.1:12345", nil},
		"TCP6":                      {"PROXY TCP6 2001:db8::1 ::1 12345 443\r\n", "[2001:db8::1]:12345", nil},
		"UNKNOWN":                   {"PROXY UNKNOWN\r\n", "", nil},
		"UNKNOWN with addresses":    {"PROXY UNKNOWN 2001:db8::1 ::1 12345 443\r\n", "", nil},
		"longest line":              {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "", nil},
		"line without end":          {"PROXY UNKNOWN " + strings.Repeat("f", 200), "", ErrTooLong},
		"line without CR":           {"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\n", "", errAny},
		"cut line":                  {"PROXY TCP4 192.0.2.1 10.0", "", io.ErrUnexpectedEOF},
		"wrong address":             {"PROXY TCP4 192.0.2.256 10.0.0.1 12345 443\r\n", "", errAny},
		"zone":                      {"PROXY TCP6 fe80::1%eth0 ::1 12345 443\r\n", "", errAny},
		"wrong family":              {"PROXY TCP4 2001:db8::1 ::1 12345 443\r\n", "", errAny},
		"wrong port":                {"PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n", "", errAny},
		"other protocol of the two": {"PROXY UDP4 192.0.2.1 10.0.0.1 12345 443\r\n", "", errAny},
		"lower case":                {"proxy TCP4 192.0.2.1 10.0.0.1 12345 443\r\n", "", ErrNone},
		"HTTP":                      {"GET / HTTP/1.1\r\nHost: a.b\r\n\r\n", "", ErrNone},
		"nothing":                   {"", "", io.EOF},
		"a few bytes":               {"PROXY", "", io.ErrUnexpectedEOF},

		"v2 TCP4":               {version2(proxied, tcp4, addresses4), "192.0.2.1:12345", nil},
		"v2 TCP6":               {version2(proxied, tcp6, addresses6), "[2001:db8::1]:12345", nil},
		"v2 TCP6 with IPv4":     {version2(proxied, tcp6, mapped+mapped+"\x30\x39\x01\xbb"), "192.0.2.1:12345", nil},
		"v2 with an extension":  {version2(proxied, tcp4, extension(200)), "192.0.2.1:12345", nil},
		"v2 longest":            {version2(proxied, tcp4, extension(maxHeader)), "192.0.2.1:12345", nil},
		"v2 too long":           {version2(proxied, tcp4, extension(maxHeader+1)), "", ErrTooLong},
		"v2 LOCAL":              {version2(local, 0, ""), "", nil},
		"v2 LOCAL with address": {version2(local, tcp4, addresses4), "", nil},
		"v2 UNSPEC":             {version2(proxied, 0, ""), "", errAny},
		"v2 UDP":                {version2(proxied, 0x12, addresses4), "", ErrFamily},
		"v2 Unix":               {version2(proxied, 0x31, strings.Repeat("s", 216)), "", ErrFamily},
		"v2 unknown family":     {version2(proxied, 0x13, addresses4), "", errAny},
		"v2 unknown command":    {version2(2, tcp4, addresses4), "", errAny},
		"v2 of version 3":       {v2 + "\x31\x11\x00\x0c" + addresses4, "", errAny},
		"v2 too short":          {version2(proxied, tcp4, addresses4[:11]), "", errAny},
		"v2 cut":                {version2(proxied, tcp4, addresses4)[:20], "", io.ErrUnexpectedEOF},
		"v2 cut at its length":  {version2(proxied, tcp4, addresses4)[:15], "", io.ErrUnexpectedEOF},
	}
	for name, tt := range tests {
		for way, wrap := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			t.Run(name+", "+way, func(t *testing.T) {
				const data = "PROXY TCP4 and what the client sends"
				rest := data
				if tt.err != nil {
					rest = "" // a header that is cut has an end there
				}
				in := bytes.NewBufferString(tt.header + rest)
				client, err := Read(wrap(in))
				if wrong := !errors.Is(err, tt.err); errors.Is(tt.err, errAny) && err == nil || !errors.Is(tt.err, errAny) && wrong {
					t.Fatalf("the error is %v, want %v", err, tt.err)
				}
				got := ""
				if client != nil {
					got = client.String()
				}
				if got != tt.client {
					t.Errorf("the client is %q, want %q", got, tt.client)
				}
				if tt.err == nil && in.String() != data {
					t.Errorf("what is left is %q, want %q", in, data)
				}
			})
		}
	}
}

var errAny = errors.New("any")

// TestNothingIsReadAhead: a length that is too large costs nothing, and a line is read only to its limit.
func TestNothingIsReadAhead(t *testing.T) {
	for name, header := range map[string]string{"line": "PROXY UNKNOWN ", "v2": v2 + "\x21\x11\xff\xff"} {
		in := strings.NewReader(header + strings.Repeat("x", 1<<16))
		before := in.Len()
		if _, err := Read(in); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: %v", name, err)
		}
		if used := before - in.Len(); used > maxLine {
			t.Errorf("%s: %d bytes are read", name, used)
		}
	}
}

func TestSenders(t *testing.T) {
	s, err := Parse([]string{"10.0.0.0/24", "192.0.2.7/32", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"10.0.0.255": true, "10.0.1.0": false, "::ffff:10.0.0.1": true, "192.0.2.7": true, "192.0.2.8": false,
		"2001:db8:1::1": true, "2001:db9::1": false,
	} {
		if got := s.Has(&net.TCPAddr{IP: net.ParseIP(address), Port: 1}); got != want {
			t.Errorf("%s: %t, want %t", address, got, want)
		}
	}
	if s.Has(&net.UnixAddr{Name: "10.0.0.1"}) || Senders(nil).Has(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}) {
		t.Error("it has a sender that it does not list")
	}
	for entry, want := range map[string]string{
		"10.0.0.1": "want a network such as", "balancer": "want a network such as", "::ffff:10.0.0.0/104": "want a network such as",
		"10.0.0.1/24": "did you mean 10.0.0.0/24 or 10.0.0.1/32?", "0.0.0.0/0": "each client could choose", "::/0": "each client could choose",
	} {
		if _, err := Parse([]string{entry}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", entry, err, want)
		}
	}
	if _, err := Parse(make([]string, MaxSenders+1)); err == nil || !strings.Contains(err.Error(), "at most 100") {
		t.Errorf("too many: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\nGET /"))
	f.Add([]byte(version2(proxied, tcp6, addresses6)))
	f.Add([]byte(version2(local, 0, "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		client, err := Read(in)
		if used := len(data) - in.Len(); used > maxHeader {
			t.Errorf("%d bytes are read", used)
		}
		if err != nil && client != nil || client != nil && !client.AddrPort().Addr().IsValid() {
			t.Errorf("the client is %v with %v", client, err)
		}
	})
}
