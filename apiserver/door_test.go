package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/rest"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// untouched is a body that must not be read.
type untouched struct{ read bool }

func (u *untouched) Read([]byte) (int, error) { u.read = true; return 0, io.ErrUnexpectedEOF }
func (u *untouched) Close() error             { return nil }

// newDoor returns a server's door, for calls without a network.
func newDoor(t testing.TB, h *house) *door {
	t.Helper()
	gs := grpc.NewServer(grpc.UnaryInterceptor(h.unary(admission.Visitor, store.Lease{})), grpc.StreamInterceptor(h.stream(admission.Visitor, store.Lease{})))
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

// TestBodiesAreNotReadBeforeTheCallerIsKnown: no byte of a body is read before the caller is authenticated and authorised,
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
			if allows(methods[path.RPC], role) || path.Method == http.MethodGet {
				continue
			}
			body := &untouched{}
			r := httptest.NewRequestWithContext(t.Context(), path.Method, example(path), body)
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
				t.Errorf("%s %s as %q: %d, want %d; read: %v", path.Method, example(path), token, w.Code, want, body.read)
			}
		}
	}
}

// example is a path that the pattern matches.
func example(p rest.Path) string {
	out := make([]string, len(p.Segments))
	for i, s := range p.Segments {
		if out[i] = s; strings.HasPrefix(s, "{") {
			out[i] = "x"
		}
	}
	path := strings.Join(out, "/")
	if p.Verb != "" {
		path += ":" + p.Verb
	}
	return path
}

func allows(m method, role api.Role) bool {
	return slices.Contains(m.roles, role)
}

func fmtCode(c codes.Code) string {
	return map[codes.Code]string{codes.PermissionDenied: "7", codes.Unauthenticated: "16"}[c]
}

// TestALargeJoinIsNotRead: a join request is small, so a large one is rejected unread.
func TestALargeJoinIsNotRead(t *testing.T) {
	d := newDoor(t, newHouse(t, nil))
	header := binary.BigEndian.AppendUint32([]byte{0}, admission.MaxJoin+1)
	rest := &untouched{}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, grpcRequest(t.Context(), carav1.NodeService_Join_FullMethodName, "", io.MultiReader(bytes.NewReader(header), rest)))
	if rest.read || w.Result().Trailer.Get("Grpc-Status") != "8" {
		t.Errorf("gRPC: status %v, read: %v", w.Result().Trailer, rest.read)
	}
}

// TestTheDoorKnowsEveryPathOfTheGateway: the door would reject a path that only the gateway knows.
func TestTheDoorKnowsEveryPathOfTheGateway(t *testing.T) {
	h := newHouse(t, nil)
	routes := newDoor(t, h).routes
	for _, p := range routes.paths {
		if routes.rpc(p.RPC, false).stream {
			continue // it never ends; TestStreamsEndWithTheirToken and others open these
		}
		if a := h.do(t, "admin", p.Method, example(p), ""); a.code == http.StatusNotFound && strings.Contains(a.body, "there is nothing at") {
			t.Errorf("%s %s: %s", p.Method, example(p), a.body)
		}
	}
}
