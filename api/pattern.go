package api

import (
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (e *fieldErrors) patterns(field string, patterns []string, wrong func(string) string) {
	for i, p := range patterns {
		if why := wrong(p); why != "" {
			e.add(Element(field, i), "%s", why)
		}
	}
}

func (e *fieldErrors) allow(a *carav1.SourceAllow) {
	e.patterns("spec.allow.names", a.GetNames(), syntax.NamePattern)
	e.patterns("spec.allow.hosts", a.GetHosts(), syntax.HostPattern)
	e.patterns("spec.allow.secrets", a.GetSecrets(), syntax.NamePattern)
	e.patterns("spec.allow.ports", a.GetPorts(), PortRangeProblem)
	e.patterns("spec.allow.publicPorts", a.GetPublicPorts(), PortRangeProblem)
}
