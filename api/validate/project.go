package validate

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// MaxProject limits a project's spec, in bytes of protobuf. The store accepts values up to 512 KiB, which must also hold
// the claim and the status.
const MaxProject = 256 << 10

func (e projectErrors) project(s *carav1.ProjectSpec) {
	if s == nil {
		return
	}
	x := specIndex{services: map[string]int{}, volumes: map[string]int{}, specs: map[string]*carav1.Service{}}
	for i, svc := range s.GetServices() {
		at := api.Element("spec.services", i)
		e.dnsLabel(at+".name", svc.GetName())
		e.unique(x.services, svc.GetName(), "service name", "spec.services", i, ".name")
		x.specs[svc.GetName()] = svc
		if svc.GetName() == loopbackName {
			e.add(at+".name", "is %q, which every container resolves to itself; choose another name", loopbackName)
		}
	}
	for i, v := range s.GetVolumes() {
		e.dnsLabel(api.Element("spec.volumes", i)+".name", v.GetName())
		e.unique(x.volumes, v.GetName(), "volume name", "spec.volumes", i, ".name")
		e.volume(api.Element("spec.volumes", i), v)
	}
	if n := len(api.ManagedVolumes(s)); n > api.MaxManaged {
		e.add("spec.volumes", "has %d volumes of type %s, at most %d are allowed; put directories that belong together into one volume", n, api.VolumeManaged, api.MaxManaged)
	}
	for i, svc := range s.GetServices() {
		serviceErrors(e).service(api.Element("spec.services", i), svc, x)
	}
	e.cycles(s.GetServices(), x)
	e.ingress(s.GetIngress(), x)
	e.ports(s.GetPorts(), x)
	e.backup(s, x)
	if t := s.GetExpireAt(); t != nil && !t.IsValid() {
		e.add("spec.expireAt", "is out of range; write a time between the years 1 and 9999, such as 2026-01-31T18:00:00Z")
	}
	e.labels("spec.nodeSelector", s.GetNodeSelector())
	if s.GetRescheduleAfter() != api.Never {
		e.duration("spec.rescheduleAfter", s.GetRescheduleAfter(), 0, 30*24*time.Hour)
	}
	names := map[string]int{}
	for i, n := range s.GetImagePullSecrets() {
		at := api.Element("spec.imagePullSecrets", i)
		if n == "" {
			e.add(at, "is empty; name a Secret of type registry")
		}
		e.dnsLabel(at, n)
		e.unique(names, n, "secret name", "spec.imagePullSecrets", i, "")
	}
	if size := proto.Size(s); size > MaxProject && len(e.list) == 0 { // any other error is more specific
		e.add("spec", "has %d KiB, at most %d KiB are allowed; make several projects of it", size>>10, MaxProject>>10)
	}
}

// loopbackName is in every container's /etc/hosts, so a service with this name could not be reached.
const loopbackName = "localhost"

// specIndex holds the names that other fields refer to.
type specIndex struct {
	specs    map[string]*carav1.Service
	services map[string]int
	volumes  map[string]int
}

// unique records name at index i and adds an error if it was recorded before.
func (e *fieldErrors) unique(seen map[string]int, name, what, list string, i int, suffix string) {
	if name == "" {
		return
	}
	if first, ok := seen[name]; ok {
		short := list[strings.LastIndexByte(list, '.')+1:]
		e.add(api.Element(list, i)+suffix, "%s %q appears twice: %s and %s; rename one of them", what, text.Short(name), api.Element(short, first), api.Element(short, i))
		return
	}
	seen[name] = i
}

// cycles rejects services that wait for each other, and shows the cycle.
func (e projectErrors) cycles(services []*carav1.Service, x specIndex) {
	const unseen, open, done = 0, 1, 2
	state := make([]int, len(services))
	var path []int
	var visit func(i int) []string
	visit = func(i int) []string {
		if state[i] == done {
			return nil
		}
		if state[i] == open {
			return circle(services, path, i)
		}
		state[i] = open
		path = append(path, i)
		defer func() { state[i], path = done, path[:len(path)-1] }()
		for _, d := range services[i].GetDependsOn() {
			if j, ok := x.services[d.GetService()]; ok {
				if c := visit(j); c != nil {
					return c
				}
			}
		}
		return nil
	}
	for i := range services {
		if state[i] != unseen {
			continue
		}
		if c := visit(i); c != nil {
			at := api.Element("spec.services", x.services[c[0]]) + ".dependsOn"
			e.add(at, "services wait for each other in a circle: %s; take one of these dependencies away", strings.Join(c, " -> "))
			return
		}
	}
}

func circle(services []*carav1.Service, path []int, back int) []string {
	var names []string
	for _, i := range path {
		if i == back || len(names) > 0 {
			names = append(names, services[i].GetName())
		}
	}
	return append(names, services[back].GetName())
}
