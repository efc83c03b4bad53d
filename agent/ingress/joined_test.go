package ingress

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sizes is a connection that notes how large the writes are.
type sizes struct {
	net.Conn
	all  []int
	sent bytes.Buffer
	err  error
}

func (s *sizes) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.all = append(s.all, len(p))
	return s.sent.Write(p)
}

// TestJoinedWrites: what is written between join and sendJoined is sent together, in its order, if there is room.
func TestJoinedWrites(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 2*joinedSize/16)
	for name, c := range map[string]struct{ writes, want []int }{
		"nothing":                 {nil, nil},
		"two records":             {[]int{16 << 10, 16 << 10}, []int{32 << 10}},
		"more than there is room": {[]int{16 << 10, 16 << 10, 16 << 10}, []int{32 << 10, 16 << 10}},
		"one that is too large":   {[]int{100, joinedSize + 1, 5}, []int{100, joinedSize + 1, 5}},
	} {
		to := &sizes{}
		with := &conn{Conn: to}
		with.due.Store(1 << 62)
		with.join()
		at := 0
		for _, n := range c.writes {
			if _, err := with.Write(data[at : at+n]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			at += n
		}
		if err := with.sendJoined(); err != nil || !slices.Equal(to.all, c.want) || !bytes.Equal(to.sent.Bytes(), data[:at]) {
			t.Errorf("%s: sent as %v, want %v (%v)", name, to.all, c.want, err)
		}
		if _, err := with.Write(data[:3]); err != nil || to.all[len(to.all)-1] != 3 {
			t.Errorf("%s: a write afterwards is kept: %v, %v", name, to.all, err)
		}
	}
	broken := &conn{Conn: &sizes{err: io.ErrClosedPipe}}
	broken.due.Store(1 << 62)
	broken.join()
	if _, err := broken.Write(data[:10]); err != nil {
		t.Errorf("kept: %v", err)
	}
	if err := broken.sendJoined(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a connection that is closed: %v", err)
	}
}

// TestLargeBodyOverTLS: it arrives as it is, over HTTP/1.1 and HTTP/2.
func TestLargeBodyOverTLS(t *testing.T) {
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	ip, port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		for part := range slices.Chunk(data, 50_001) {
			_, _ = w.Write(part)
		}
	})
	f := publicFront(t, Config{Node: "n1", Endpoint: up(ip)})
	f.ApplyCredentials(&carav1.Credentials{Full: true, Certificates: []*carav1.Certificate{f.certificate(t, "a", "a.test")}})
	f.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.test", Project: "p", Service: "w", Port: port, Node: "n1", Scope: api.ScopePublic, Tls: &carav1.IngressTLS{}}}})
	for _, http2 := range []bool{false, true} {
		resp, body := fetch(t, f.client(t, http2), "https://a.test/")
		if got := sha256.Sum256([]byte(body)); resp.StatusCode != http.StatusOK || got != sha256.Sum256(data) {
			t.Errorf("HTTP/2 %t: %s, %d bytes of %d", http2, resp.Proto, len(body), len(data))
		}
	}
}

// recordsOf writes as crypto/tls does: a large write becomes two.
type recordsOf struct {
	http.ResponseWriter
	to io.Writer
}

func (r recordsOf) Write(p []byte) (int, error) {
	n, err := r.to.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	rest, err := r.to.Write(p[len(p)/2:])
	return n + rest, err
}

// TestLargeWritesAreJoined: the records of a large write over TLS are sent together, and nothing else is kept.
func TestLargeWritesAreJoined(t *testing.T) {
	const large = 2 * joinFrom
	for name, c := range map[string]struct {
		size  int
		tls   bool
		major int
		want  []int
	}{
		"large":       {large, true, 1, []int{large}},
		"small":       {joinFrom, true, 1, []int{joinFrom / 2, joinFrom / 2}},
		"without TLS": {large, false, 1, []int{large / 2, large / 2}},
		"HTTP/2":      {large, true, 2, []int{large / 2, large / 2}},
	} {
		to := &sizes{}
		with := &conn{Conn: to}
		with.due.Store(1 << 62)
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), connKey{}, with), http.MethodGet, "/", http.NoBody)
		r.ProtoMajor, r.TLS = c.major, nil
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		x := &exchange{ResponseWriter: recordsOf{to: with}, request: r}
		if n, err := x.Write(make([]byte, c.size)); n != c.size || err != nil || !slices.Equal(to.all, c.want) {
			t.Errorf("%s: %d bytes are sent as %v, want %v (%v)", name, n, to.all, c.want, err)
		}
		to.err = io.ErrClosedPipe
		if _, err := x.Write(make([]byte, c.size)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s, on a connection that is closed: %v", name, err)
		}
	}
}
