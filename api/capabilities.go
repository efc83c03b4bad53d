package api

import (
	"slices"
	"strings"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// ExtraCapabilities returns, in order, the capabilities that a project adds and that are not allowed on every node.
func ExtraCapabilities(spec *carav1.ProjectSpec) []string {
	var out []string
	for _, s := range spec.GetServices() {
		for _, c := range s.GetCapAdd() {
			if name := syntax.CanonCapability(c); !slices.Contains(syntax.AllowedCapabilities(), name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// CapabilityViolations returns an error for each added capability that is neither allowed on every node nor listed in more.
func CapabilityViolations(p *carav1.Project, more []string) []*carav1.FieldError {
	e := &fieldErrors{seen: map[string]bool{}}
	allowed := append(syntax.AllowedCapabilities(), more...)
	slices.Sort(allowed)
	for i, s := range p.GetSpec().GetServices() {
		for j, c := range s.GetCapAdd() {
			if !slices.Contains(allowed, syntax.CanonCapability(c)) {
				e.add(Element(Element("spec.services", i)+".capAdd", j), "policy \"capabilities\" does not allow %q; allowed are %s; "+
					"a node's operator can allow more with cara-agent --allow-cap", text.Short(c), strings.Join(slices.Compact(allowed), ", "))
			}
		}
	}
	return e.list
}

// added validates capAdd, except for what depends on the nodes.
func (e serviceErrors) added(at string, caps []string) {
	for i, c := range caps {
		switch name := syntax.CanonCapability(c); {
		case name == syntax.AllCapabilities:
			e.add(Element(at, i), "policy \"capabilities\" does not allow ALL; name each capability that the service needs")
		case !slices.Contains(syntax.Capabilities(), name):
			e.add(Element(at, i), "%q is no Linux capability; write one such as NET_BIND_SERVICE", text.Short(c))
		}
	}
}
