package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// untouched is a body that nobody may read.
type untouched struct{ read bool }

func (u *untouched) Read([]byte) (int, error) { u.read = true; return 0, io.ErrUnexpectedEOF }
func (u *untouched) Close() error             { return nil }

// newDoor is the door of a house, to be called without a network.
func newDoor(t testing.TB, h *house) *door {
	t.Helper()
	gs := grpc.NewServer(grpc.UnaryInterceptor(h.unary(visitor)), grpc.StreamInterceptor(h.stream(visitor)))
	h.register(gs)
	handler, err := h.door(t.Context(), gs)
	if err != nil {
		t.Fatal(err)
	}
	return handler.(*door)
}

// grpcRequest is a call with the first bytes of a body that never ends.
func grpcRequest(ctx context.Context, method, token string, body io.Reader) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, method, body)
	r.ProtoMajor, r.ProtoMinor, r.Proto = 2, 0, "HTTP/2.0"
	r.Header.Set("Content-Type", "application/grpc")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// TestBodiesAreNotReadBeforeTheCallerIsKnown: of a caller who is unknown, or may not, no byte of a body is read,
// whatever the method and the protocol.
func TestBodiesAreNotReadBeforeTheCallerIsKnown(t *testing.T) {
	h := newHouse(t, nil)
	d := newDoor(t, h)
	for method, rights := range methods {
		for token, role := range map[string]api.Role{"": api.RoleNone, "nonsense": api.RoleNone, "viewer": api.RoleViewer, "n1": api.RoleNode} {
			if allows(rights, role) {
				continue
			}
			body := &untouched{}
			w := httptest.NewRecorder()
			d.ServeHTTP(w, grpcRequest(t.Context(), method, token, body))
			want := codes.PermissionDenied
			if role == api.RoleNone {
				want = codes.Unauthenticated
			}
			if got := w.Result().Trailer.Get("Grpc-Status"); body.read || got != fmtCode(want) {
				t.Errorf("%s as %q: status %s, want %s; read: %v", method, token, got, fmtCode(want), body.read)
			}
		}
	}
	for _, path := range d.routes.paths {
		for token, role := range map[string]api.Role{"": api.RoleNone, "nonsense": api.RoleNone, "viewer": api.RoleViewer, "n1": api.RoleNode} {
			if allows(methods[path.rpc], role) || path.method == http.MethodGet {
				continue
			}
			body := &untouched{}
			r := httptest.NewRequestWithContext(t.Context(), path.method, path.example(), body)
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			d.ServeHTTP(w, r)
			want := http.StatusForbidden
			if role == api.RoleNone {
				want = http.StatusUnauthorized
			}
			if body.read || w.Code != want {
				t.Errorf("%s %s as %q: %d, want %d; read: %v", path.method, path.example(), token, w.Code, want, body.read)
			}
		}
	}
}

// example is a path that the pattern matches.
func (p restPath) example() string {
	out := make([]string, len(p.segments))
	for i, s := range p.segments {
		if out[i] = s; strings.HasPrefix(s, "{") {
			out[i] = "x"
		}
	}
	path := strings.Join(out, "/")
	if p.verb != "" {
		path += ":" + p.verb
	}
	return path
}

func allows(m method, role api.Role) bool {
	return slices.Contains(m.roles, role)
}

func fmtCode(c codes.Code) string {
	return map[codes.Code]string{codes.PermissionDenied: "7", codes.Unauthenticated: "16"}[c]
}

// TestALargeJoinIsNotRead: who joins sends a certificate request, and no megabytes.
func TestALargeJoinIsNotRead(t *testing.T) {
	d := newDoor(t, newHouse(t, nil))
	header := binary.BigEndian.AppendUint32([]byte{0}, maxJoin+1)
	rest := &untouched{}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, grpcRequest(t.Context(), carav1.NodeService_Join_FullMethodName, "", io.MultiReader(bytes.NewReader(header), rest)))
	if rest.read || w.Result().Trailer.Get("Grpc-Status") != "8" {
		t.Errorf("gRPC: status %v, read: %v", w.Result().Trailer, rest.read)
	}
}

// TestTheDoorKnowsEveryPathOfTheGateway: a path that the gateway serves and the door does not know would be refused.
func TestTheDoorKnowsEveryPathOfTheGateway(t *testing.T) {
	h := newHouse(t, nil)
	routes := newDoor(t, h).routes
	for _, p := range routes.paths {
		if routes.rpc(p.rpc, false).stream {
			continue // it has no end; TestStreamsEndWithTheirToken and others open them
		}
		if a := h.do(t, "admin", p.method, p.example(), ""); a.code == http.StatusNotFound && strings.Contains(a.body, "there is nothing at") {
			t.Errorf("%s %s: %s", p.method, p.example(), a.body)
		}
	}
}

func TestBodiesHaveABudget(t *testing.T) {
	b := newBodies(100)
	first, err := b.reserve(t.Context(), "user/a", 50)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.reserve(t.Context(), "user/a", 1) // half is the most for one
	wantCode(t, err, codes.ResourceExhausted, api.TitleTooMany)
	second, err := b.reserve(t.Context(), "user/b", 50)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		_, err := b.reserve(t.Context(), "user/c", 1)
		wantCode(t, err, codes.Unavailable, api.TitleUnavailable)
	})
	first()
	third, err := b.reserve(t.Context(), "user/c", 50)
	if err != nil {
		t.Fatal(err)
	}
	second()
	third()
	if len(b.callers) != 0 {
		t.Errorf("%v is still counted", b.callers)
	}
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
		turns := newTurns(3, 2)
		take := func(from netip.Prefix) <-chan error {
			done := make(chan error, 1)
			go func() { done <- turns.take(t.Context(), from) }()
			synctest.Wait()
			return done
		}
		took := func(c <-chan error) bool { return len(c) == 1 }
		take(a)
		take(a)
		third := take(a)
		if other := take(b); took(third) || !took(other) {
			t.Errorf("an address has more than its turns (%v), or keeps out another (%v)", took(third), !took(other))
		}
		last := take(b) // three are taken
		turns.done(b)
		synctest.Wait()
		if took(third) || !took(last) {
			t.Error("a turn that was given back went to the wrong address")
		}
		turns.done(a)
		synctest.Wait()
		if !took(third) {
			t.Error("nobody got the turn that was given back")
		}
		turns.done(a)
		turns.done(a)
		turns.done(b)
		if turns.taken != 0 || len(turns.from) != 0 {
			t.Errorf("%d turns are taken, by %v", turns.taken, turns.from)
		}
	})
}

func TestStrangersAreFew(t *testing.T) {
	s := strangers{from: map[netip.Prefix]int{}}
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	for range maxStrangers {
		if _, ok := s.enter(a); !ok {
			t.Fatal("refused before the bound")
		}
	}
	if _, ok := s.enter(a); ok {
		t.Error("an address has more requests than the bound")
	}
	if here, ok := s.enter(b); !ok || here != 1 {
		t.Errorf("another address: %d, %v", here, ok)
	}
	s.leave(a)
	if _, ok := s.enter(a); !ok {
		t.Error("an answered request still counts")
	}
}

// However many addresses strangers have, they are bounded together.
func TestStrangersOfManyAddressesAreFew(t *testing.T) {
	s := strangers{from: map[netip.Prefix]int{}}
	address := func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), 32)
	}
	for n := range maxAllStrangers {
		if _, ok := s.enter(address(n)); !ok {
			t.Fatalf("stranger %d is refused before the bound", n)
		}
	}
	if _, ok := s.enter(address(maxAllStrangers)); ok {
		t.Error("there are more strangers than the bound")
	}
	s.leave(address(0))
	if _, ok := s.enter(address(maxAllStrangers)); !ok {
		t.Error("an answered request still counts")
	}
}
