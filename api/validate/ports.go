package validate

import (
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (e projectErrors) ports(ports []*carav1.ProjectPort, x specIndex) {
	names, keys := map[string]int{}, map[api.PortKey]int{}
	for i, p := range ports {
		at := api.Element("spec.ports", i)
		e.dnsLabel(at+".name", p.GetName())
		e.unique(names, p.GetName(), "port name", "spec.ports", i, ".name")
		k := api.KeyOfPort(p)
		if first, twice := keys[k]; twice {
			e.add(at+".port", "%s appears twice: %s and %s; take one of them away", k, api.Element("ports", first), api.Element("ports", i))
		} else {
			keys[k] = i
		}
		e.targetService(at, p.GetTarget().GetService(), x)
		if p.GetTarget().GetProtocol() != "" {
			e.add(at+".target.protocol", "is only for ingress; remove it, because a port passes on the data unchanged")
		}
		e.patterns(at+".allow", p.GetAllow(), networkProblem)
	}
}
