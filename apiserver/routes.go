package apiserver

import (
	"net/http"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/apiserver/rest"
	"github.com/caravanserai/cara/apiserver/ui"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// route is the destination of a request, as far as the headers show it.
type route struct {
	method string // full name of the RPC; empty for a page
	grpc   bool
	page   bool // the page for people, whose sessions are cookies
	open   bool // handles unauthenticated callers itself: a webhook
	stream bool // the RPC streams, in either direction
	sends  bool // the caller streams
}

// routes finds the RPC of a request, by the gRPC path or by the REST paths of the contract.
type routes struct {
	rpcs  map[string]protoreflect.MethodDescriptor // by full name, as in a gRPC path
	paths rest.Paths
}

func newRoutes() (routes, error) {
	paths, err := rest.ReadPaths()
	if err != nil {
		return routes{}, err
	}
	return routes{rpcs: rpcs(), paths: paths}, nil
}

// rpcs returns every method of the contract by its full name.
func rpcs() map[string]protoreflect.MethodDescriptor {
	out := map[string]protoreflect.MethodDescriptor{}
	for _, file := range []protoreflect.FileDescriptor{carav1.File_cara_v1_service_proto, carav1.File_cara_v1_peer_proto} {
		services := file.Services()
		for i := range services.Len() {
			all := services.Get(i).Methods()
			for j := range all.Len() {
				out[rest.FullMethod(all.Get(j))] = all.Get(j)
			}
		}
	}
	return out
}

func (t routes) of(r *http.Request) route {
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return t.rpc(r.URL.Path, true)
	}
	if r.URL.Path == "/ui" || strings.HasPrefix(r.URL.Path, ui.Prefix) {
		return route{page: true, stream: true}
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if method == http.MethodPost && isWebhook(r.URL.Path) {
		return route{open: true}
	}
	return t.rpc(t.paths.RPC(method, r.URL.Path), false)
}

func (t routes) rpc(name string, grpc bool) route {
	out := route{method: name, grpc: grpc}
	if m := t.rpcs[name]; m != nil {
		out.sends = m.IsStreamingClient()
		out.stream = out.sends || m.IsStreamingServer()
	}
	return out
}

func isWebhook(path string) bool {
	name, ok := strings.CutPrefix(path, "/api/v1/sources/")
	if !ok {
		return false
	}
	name, ok = strings.CutSuffix(name, "/webhook")
	return ok && !strings.Contains(name, "/")
}
