package agent_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestRealShortJob: a job that runs for 0.3 seconds counts by its exit code, even if it ended before the agent looked.
func TestRealShortJob(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	for code, want := range map[string]string{"0": api.PhaseRunning, "3": api.PhaseFailed} {
		project := uniqueName("short")
		r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{{
			Name: "job", Image: testimage.Job, Args: []string{"-lines", "1", "-after", "300ms", "-exit", code}, RestartPolicy: api.RestartNever,
		}}})
		p := r.wait(t, project, func(p *carav1.Project) bool {
			state := api.ServiceCompleted
			if want == api.PhaseFailed {
				state = api.ServiceFailed
			}
			s := p.GetStatus().GetServices()
			return p.GetStatus().GetPhase() == want && len(s) == 1 && s[0].GetState() == state
		})
		if got := p.GetStatus().GetServices()[0]; fmt.Sprint(got.GetExitCode()) != code {
			t.Errorf("exit code %d, want %s", got.GetExitCode(), code)
		}
		r.terminate(project)
		r.wait(t, project, gone)
	}
}

// TestRealManyServices: the network of a project with 35 services has an address for each of them and for the successor of
// each, which a /27 has not.
func TestRealManyServices(t *testing.T) {
	t.Parallel()
	if os.Getenv(soakEnv) == "" {
		t.Skip("it starts 35 containers: set " + soakEnv + "=1")
	}
	const services = 35
	r := newReal(t)
	r.run(t)
	project := uniqueName("many")
	spec := &carav1.ProjectSpec{}
	for i := range services {
		spec.Services = append(spec.Services, &carav1.Service{
			Name: fmt.Sprint("s", i), Image: testimage.Busybox, Command: []string{"sleep", "1000"}, StopSignal: "SIGKILL",
		})
	}
	r.put(project, spec)
	p := r.waitFor(t, project, 5*time.Minute, phase(api.PhaseRunning))
	for _, s := range p.GetStatus().GetServices() {
		if s.GetState() != api.ServiceRunning {
			t.Errorf("service %s is %s: %s", s.GetName(), s.GetState(), s.GetMessage())
		}
	}
	n, err := r.docker(t).NetworkInspect(t.Context(), "cara-"+project, network.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if subnet := netip.MustParsePrefix(n.IPAM.Config[0].Subnet); subnet.Bits() != 25 || len(n.Containers) != services {
		t.Errorf("%d containers are on %s, want %d on a /25", len(n.Containers), subnet, services)
	}
	r.terminate(project)
	r.waitFor(t, project, 5*time.Minute, gone)
}
