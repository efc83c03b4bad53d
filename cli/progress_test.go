package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func progressOf(name string, services ...*carav1.ServiceStatus) *carav1.Project {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: name, Generation: 2},
		Spec:     &carav1.ProjectSpec{},
		Status:   &carav1.ProjectStatus{Phase: api.PhaseScheduled, ObservedGeneration: 2, Services: services},
	}
	for _, s := range services {
		p.Spec.Services = append(p.Spec.Services, &carav1.Service{Name: s.GetName()})
	}
	return p
}

func TestProgressDrawsServicesInPlace(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, live: true, columns: 40, rows: 24}
	pulling := &carav1.ServiceStatus{Name: "web", State: "Pulling", Message: "pulling web:1: 3 of 9 MB\x1b[2J, and a long tail of words"}
	ready := &carav1.ServiceStatus{Name: "db", State: "Running", Health: "Healthy", Message: "old news"}
	p.show([]string{"not shown"}, map[string]*carav1.Project{"shop": progressOf("shop", ready, pulling)})
	want := "shop/web   Pulling   pulling web:1: 3 …\nshop/db    Healthy\n"
	if got := out.String(); got != want {
		t.Errorf("drew\n%q, want\n%q", got, want)
	}
	out.Reset()
	p.show(nil, map[string]*carav1.Project{"shop": progressOf("shop", ready)})
	if got, want := out.String(), "\x1b[2A\x1b[Jshop/db   Healthy\n"; got != want {
		t.Errorf("drew\n%q, want\n%q", got, want)
	}
}

// A status of an older generation says nothing about the services of this one.
func TestProgressShowsNoOldStatus(t *testing.T) {
	p := progressOf("shop", &carav1.ServiceStatus{Name: "web", State: "Running"})
	p.Metadata.Generation = 3
	rows := serviceRows(p)
	if len(rows) != 1 || rows[0][0].Text != "shop" || rows[0][1].Text != api.PhaseScheduled {
		t.Errorf("got %+v, want the project's phase alone", rows)
	}
}

func TestProgressFitsTheTerminal(t *testing.T) {
	p := &progress{columns: 80, rows: 4}
	var services []*carav1.ServiceStatus
	for _, name := range []string{"a", "b", "c", "d"} {
		services = append(services, &carav1.ServiceStatus{Name: name, State: "Waiting"})
	}
	lines := p.table(map[string]*carav1.Project{"shop": progressOf("shop", services...)})
	if len(lines) != 3 || lines[2] != "... and 2 more services" {
		t.Errorf("got %s", strings.Join(lines, "\n"))
	}
}

func TestProgressWritesEachStepElsewhere(t *testing.T) {
	var out bytes.Buffer
	newProgress(&out).show([]string{"project/shop Scheduled"}, nil)
	if out.String() != "project/shop Scheduled\n" {
		t.Errorf("got %q", out.String())
	}
}
