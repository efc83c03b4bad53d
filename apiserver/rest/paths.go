package rest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Paths holds the REST paths of the contract. It also gives the allowed methods for a request with a wrong method.
type Paths []Path

// Path is one REST path of a method.
type Path struct {
	Method   string
	RPC      string   // full name of the gRPC method
	Segments []string // `{...}` matches one segment
	Verb     string
}

// ReadPaths reads the paths from the contract's annotations.
func ReadPaths() (Paths, error) {
	var table Paths
	services := carav1.File_cara_v1_service_proto.Services()
	for i := range services.Len() {
		all := services.Get(i).Methods()
		for j := range all.Len() {
			rule, ok := proto.GetExtension(all.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
			if !ok || rule == nil {
				continue
			}
			p, err := parseRule(all.Get(j), rule)
			if err != nil {
				return nil, err
			}
			table = append(table, p)
		}
	}
	// The gateway does not support these: see streamPages.
	for _, p := range []struct{ path, method string }{
		{"/api/v1/projects/{name}/exec", carav1.ProjectService_Exec_FullMethodName},
		{"/api/v1/projects/{name}/port-forward", carav1.ProjectService_PortForward_FullMethodName},
	} {
		table = append(table, Path{Method: http.MethodPost, RPC: p.method, Segments: strings.Split(p.path, "/")})
	}
	return table, nil
}

func parseRule(m protoreflect.MethodDescriptor, rule *annotations.HttpRule) (Path, error) {
	p := Path{RPC: FullMethod(m)}
	var path string
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		p.Method, path = http.MethodGet, pattern.Get
	case *annotations.HttpRule_Put:
		p.Method, path = http.MethodPut, pattern.Put
	case *annotations.HttpRule_Post:
		p.Method, path = http.MethodPost, pattern.Post
	case *annotations.HttpRule_Patch:
		p.Method, path = http.MethodPatch, pattern.Patch
	case *annotations.HttpRule_Delete:
		p.Method, path = http.MethodDelete, pattern.Delete
	default:
		return p, fmt.Errorf("apiserver: %s has a REST rule of a kind that is not known", m.FullName())
	}
	path, p.Verb, _ = strings.Cut(path, ":")
	p.Segments = strings.Split(path, "/")
	return p, nil
}

// RPC returns the full name of the RPC for a request, or "".
func (t Paths) RPC(method, path string) string {
	for _, p := range t {
		if p.Method == method && p.matches(path) {
			return p.RPC
		}
	}
	return ""
}

// methods returns the HTTP methods that a path supports.
func (t Paths) methods(path string) []string {
	var out []string
	for _, p := range t {
		if p.matches(path) {
			out = append(out, p.Method)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

func (p Path) matches(path string) bool {
	if p.Verb != "" {
		rest, ok := strings.CutSuffix(path, ":"+p.Verb)
		if !ok {
			return false
		}
		path = rest
	}
	segments := strings.Split(path, "/")
	if len(segments) != len(p.Segments) {
		return false
	}
	for i, want := range p.Segments {
		if !strings.HasPrefix(want, "{") && want != segments[i] {
			return false
		}
	}
	return true
}

// FullMethod returns a method's name in gRPC format: /PACKAGE.SERVICE/METHOD.
func FullMethod(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}
