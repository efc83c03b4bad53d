package validate_test

import (
	"slices"
	"testing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestCapabilityViolations(t *testing.T) {
	for name, c := range map[string]struct {
		add   []string
		more  []string // what the node allows
		extra []string
		bad   []string // fields
	}{
		"none":                         {},
		"every node allows it":         {add: []string{"CHOWN", "cap_net_raw"}},
		"a node allows it":             {add: []string{"CAP_NET_ADMIN"}, more: []string{"NET_ADMIN"}, extra: []string{"NET_ADMIN"}},
		"no node allows it":            {add: []string{"net_admin"}, extra: []string{"NET_ADMIN"}, bad: []string{"spec.services[0].capAdd[0]"}},
		"a node allows another":        {add: []string{"CHOWN", "SYS_ADMIN"}, more: []string{"NET_ADMIN"}, extra: []string{"SYS_ADMIN"}, bad: []string{"spec.services[0].capAdd[1]"}},
		"ALL, and a node that lies":    {add: []string{"ALL"}, extra: []string{"ALL"}, bad: []string{"spec.services[0].capAdd[0]"}},
		"the same twice is told twice": {add: []string{"BPF", "BPF"}, extra: []string{"BPF"}, bad: []string{"spec.services[0].capAdd[0]", "spec.services[0].capAdd[1]"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &carav1.Project{Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", CapAdd: c.add}}}}
			if got := api.ExtraCapabilities(p.GetSpec()); !slices.Equal(got, c.extra) {
				t.Errorf("extra %v, want %v", got, c.extra)
			}
			var fields []string
			for _, bad := range validate.Capabilities(p, c.more) {
				fields = append(fields, bad.GetField())
			}
			if !slices.Equal(fields, c.bad) {
				t.Errorf("refused %v, want %v", fields, c.bad)
			}
		})
	}
}

func TestRefusedField(t *testing.T) {
	for name, want := range map[string]string{
		"privileged": "privileged", "network_mode": "host-namespaces", "hostPID": "host-namespaces", "hostPath": "host-paths",
		"ports": "host-ports", "image": "", "volumes": "",
	} {
		if got, why := validate.RefusedField(name); got != want || (got == "") != (why == "") {
			t.Errorf("%s: got %q %q, want %q", name, got, why, want)
		}
	}
}
