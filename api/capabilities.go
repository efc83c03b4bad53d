package api

import (
	"fmt"
	"slices"
	"strings"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// allCapabilities means every capability. It can be dropped but not added.
const allCapabilities = "ALL"

// ParseCapability parses a capability that a node's operator allows, and returns it as Docker spells it.
func ParseCapability(s string) (string, error) {
	name := canonCap(strings.TrimSpace(s))
	switch {
	case name == allCapabilities:
		return "", fmt.Errorf("ALL is refused: name each capability that projects may add, such as NET_ADMIN")
	case !slices.Contains(knownCapabilities(), name):
		return "", fmt.Errorf("%q is no Linux capability; name one such as NET_ADMIN", text.Short(s))
	}
	return name, nil
}

// ExtraCapabilities returns, in order, the capabilities that a project adds and that are not allowed on every node.
func ExtraCapabilities(spec *carav1.ProjectSpec) []string {
	var out []string
	for _, s := range spec.GetServices() {
		for _, c := range s.GetCapAdd() {
			if name := canonCap(c); !slices.Contains(AllowedCapabilities(), name) {
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
	allowed := append(AllowedCapabilities(), more...)
	slices.Sort(allowed)
	for i, s := range p.GetSpec().GetServices() {
		for j, c := range s.GetCapAdd() {
			if !slices.Contains(allowed, canonCap(c)) {
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
		switch name := canonCap(c); {
		case name == allCapabilities:
			e.add(Element(at, i), "policy \"capabilities\" does not allow ALL; name each capability that the service needs")
		case !slices.Contains(knownCapabilities(), name):
			e.add(Element(at, i), "%q is no Linux capability; write one such as NET_BIND_SERVICE", text.Short(c))
		}
	}
}
