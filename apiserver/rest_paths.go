package apiserver

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

// pathTable has the REST paths of the contract, so that a wrong method can be told the right ones.
type pathTable []restPath

type restPath struct {
	method   string
	rpc      string   // full name of the method of gRPC
	segments []string // `{...}` stands for one segment
	verb     string
}

// restPaths reads the contract's annotations.
func restPaths() (pathTable, error) {
	var table pathTable
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
	return table, nil
}

func parseRule(m protoreflect.MethodDescriptor, rule *annotations.HttpRule) (restPath, error) {
	p := restPath{rpc: fullMethod(m)}
	var path string
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		p.method, path = http.MethodGet, pattern.Get
	case *annotations.HttpRule_Put:
		p.method, path = http.MethodPut, pattern.Put
	case *annotations.HttpRule_Post:
		p.method, path = http.MethodPost, pattern.Post
	case *annotations.HttpRule_Patch:
		p.method, path = http.MethodPatch, pattern.Patch
	case *annotations.HttpRule_Delete:
		p.method, path = http.MethodDelete, pattern.Delete
	default:
		return p, fmt.Errorf("apiserver: %s has a REST rule of a kind that is not known", m.FullName())
	}
	path, p.verb, _ = strings.Cut(path, ":")
	p.segments = strings.Split(path, "/")
	return p, nil
}

// rpc returns the full name of the RPC behind a request; empty where there is none.
func (t pathTable) rpc(method, path string) string {
	for _, p := range t {
		if p.method == method && p.matches(path) {
			return p.rpc
		}
	}
	return ""
}

// methods returns the methods that a path takes.
func (t pathTable) methods(path string) []string {
	var out []string
	for _, p := range t {
		if p.matches(path) {
			out = append(out, p.method)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (p restPath) matches(path string) bool {
	if p.verb != "" {
		rest, ok := strings.CutSuffix(path, ":"+p.verb)
		if !ok {
			return false
		}
		path = rest
	}
	segments := strings.Split(path, "/")
	if len(segments) != len(p.segments) {
		return false
	}
	for i, want := range p.segments {
		if !strings.HasPrefix(want, "{") && want != segments[i] {
			return false
		}
	}
	return true
}
