package kind

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func projectWith(name string, services ...*carav1.ServiceStatus) *carav1.Project {
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

func TestServiceRowsShowReadyServicesLast(t *testing.T) {
	pulling := &carav1.ServiceStatus{Name: "web", State: "Pulling", Message: "pulling web:1"}
	ready := &carav1.ServiceStatus{Name: "db", State: "Running", Health: "Healthy", Message: "old news"}
	var got [][]string
	for _, row := range ServiceRows(map[string]*carav1.Project{"shop": projectWith("shop", ready, pulling)}) {
		got = append(got, []string{row[0].Text, row[1].Text, row[2].Text})
	}
	want := [][]string{{"shop/web", "Pulling", "pulling web:1"}, {"shop/db", "Healthy", ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A status of an older generation says nothing about the services of this one.
func TestServiceRowsShowNoOldStatus(t *testing.T) {
	p := projectWith("shop", &carav1.ServiceStatus{Name: "web", State: "Running"})
	p.Metadata.Generation = 3
	rows := ServiceRows(map[string]*carav1.Project{"shop": p})
	if len(rows) != 1 || rows[0][0].Text != "shop" || rows[0][1].Text != api.PhaseScheduled {
		t.Errorf("got %+v, want the project's phase alone", rows)
	}
}
