package step

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestHarden(t *testing.T) {
	type got struct {
		pids  int32
		noNew bool
	}
	for name, c := range map[string]struct {
		flags   Hardening
		service *carav1.Service
		want    got
	}{
		"no flags":                 {Hardening{}, &carav1.Service{}, got{4096, false}},
		"a limit of the manifest":  {Hardening{}, &carav1.Service{Resources: &carav1.Resources{Limits: &carav1.ResourceList{Pids: 9}}}, got{9, false}},
		"another limit":            {Hardening{PIDsLimit: 100}, &carav1.Service{Resources: limited("1", "")}, got{100, false}},
		"no limit":                 {Hardening{PIDsLimit: -1}, &carav1.Service{}, got{0, false}},
		"by the manifest":          {Hardening{}, &carav1.Service{NoNewPrivileges: true}, got{4096, true}},
		"by the node":              {Hardening{NoNewPrivileges: true}, &carav1.Service{}, got{4096, true}},
		"by the manifest and node": {Hardening{NoNewPrivileges: true}, &carav1.Service{NoNewPrivileges: true}, got{4096, true}},
	} {
		t.Run(name, func(t *testing.T) {
			c.service.Name, c.service.Image = "a", "web"
			p := &carav1.Project{
				Metadata: &carav1.ObjectMeta{Name: "shop"}, Spec: &carav1.ProjectSpec{Services: []*carav1.Service{c.service}},
			}
			node := Node{Hardening: c.flags.WithDefaults()}
			w := NewWant(node, &carav1.Assignment{Project: p}, true)
			s := w.Service("a")
			if is := (got{s.GetResources().GetLimits().GetPids(), s.GetNoNewPrivileges()}); is != c.want {
				t.Errorf("the container gets %+v, want %+v", is, c.want)
			}
			if w.Hashes["a"] != api.ServiceHash(p.GetSpec(), "a") {
				t.Error("the agent's flags have a part in the hash: every container would be made anew")
			}
		})
	}
}
