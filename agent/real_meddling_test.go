package agent_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// meddler is a person with the engine's client at hand.
type meddler struct {
	*onDocker
	*testing.T
	docker  *client.Client
	project string
	ids     map[string]string // of the project's containers, by service
}

func (m *meddler) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// labels of the project's container of a service.
func (m *meddler) labelsOf(service string) map[string]string {
	m.Helper()
	c, err := m.docker.ContainerInspect(m.Context(), m.ids[service])
	m.must(err)
	return c.Config.Labels
}

// forge makes and starts a container under these labels, which goes with the test.
func (m *meddler) forge(name string, labels map[string]string) string {
	m.Helper()
	c, err := m.docker.ContainerCreate(m.Context(), &container.Config{Image: testimage.WebV1, Labels: labels}, nil, nil, nil, name)
	m.must(err)
	m.must(m.docker.ContainerStart(m.Context(), c.ID, container.StartOptions{}))
	return c.ID
}

// emptyNetwork disconnects everything from the project's network and removes it. A running agent restores it meanwhile.
func (m *meddler) emptyNetwork() {
	m.Helper()
	waitUntil(m.T, func() bool {
		for _, id := range m.ids {
			if err := m.docker.NetworkDisconnect(m.Context(), "cara-"+m.project, id, true); err != nil {
				m.Logf("disconnect: %v", err)
			}
		}
		return m.docker.NetworkRemove(m.Context(), "cara-"+m.project) == nil
	})
}

// failedConnection disconnects kv and connects it again in vain, with the address of another container. After that, the engine
// lists the network of kv, although kv is not on it.
func (m *meddler) failedConnection() {
	m.Helper()
	name := "cara-" + m.project
	web, err := m.docker.ContainerInspect(m.Context(), m.ids["web"])
	m.must(err)
	m.must(m.docker.NetworkDisconnect(m.Context(), name, m.ids["kv"], true))
	taken := &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: web.NetworkSettings.Networks[name].IPAddress}}
	if err := m.docker.NetworkConnect(m.Context(), name, m.ids["kv"], taken); err == nil {
		m.Fatal("the engine gave two containers the same address")
	}
}

func (m *meddler) remove(id string) {
	m.Helper()
	m.must(m.docker.ContainerRemove(m.Context(), id, container.RemoveOptions{Force: true}))
}

// TestRealMeddling changes a running project with the Docker client. Each time the agent restores it, and recreates or
// restarts only the containers that need it.
func TestRealMeddling(t *testing.T) {
	t.Parallel()
	m := newMeddler(t, "meddled")
	for _, c := range []struct {
		name   string
		meddle func(m *meddler)
		off    bool     // the agent does not run meanwhile
		kept   []string // containers that are the same afterwards
		calm   []string // and were not even restarted
	}{
		{"container killed", func(m *meddler) { m.must(m.docker.ContainerKill(m.Context(), m.ids["web"], "KILL")) }, false, []string{"kv", "web", "front"}, []string{"kv", "front"}},
		{"container stopped", func(m *meddler) { m.must(m.docker.ContainerStop(m.Context(), m.ids["web"], container.StopOptions{})) }, false, []string{"kv", "web", "front"}, []string{"kv", "front"}},
		{"container removed", func(m *meddler) { m.remove(m.ids["web"]) }, false, []string{"kv", "front"}, []string{"kv", "front"}},
		{"container paused", func(m *meddler) { m.must(m.docker.ContainerPause(m.Context(), m.ids["web"])) }, false, []string{"kv", "web", "front"}, []string{"kv", "web", "front"}},
		{
			"container renamed",
			func(m *meddler) { m.must(m.docker.ContainerRename(m.Context(), m.ids["web"], m.project+"-mine")) },
			false,
			[]string{"kv", "web", "front"},
			[]string{"kv", "web", "front"},
		},
		{"all containers removed", func(m *meddler) {
			for _, id := range m.ids {
				m.remove(id)
			}
		}, false, nil, nil},
		{
			"network disconnected",
			func(m *meddler) {
				m.must(m.docker.NetworkDisconnect(m.Context(), "cara-"+m.project, m.ids["kv"], true))
			},
			false,
			[]string{"kv", "web", "front"},
			[]string{"kv", "web", "front"},
		},
		{"network removed", (*meddler).emptyNetwork, false, []string{"kv", "web", "front"}, []string{"kv", "web", "front"}},
		{"connection failed", (*meddler).failedConnection, true, []string{"kv", "web", "front"}, []string{"kv", "web", "front"}},
		{"a second network with the project's labels", func(m *meddler) {
			labels := m.labelsOf("kv")
			_, err := m.docker.NetworkCreate(m.Context(), m.project+"-second", network.CreateOptions{Labels: map[string]string{
				api.LabelCluster: labels[api.LabelCluster], api.LabelNode: labels[api.LabelNode], api.LabelProject: m.project,
				api.LabelUID: labels[api.LabelUID], api.LabelEpoch: labels[api.LabelEpoch],
			}})
			m.must(err)
		}, false, []string{"kv", "web", "front"}, []string{"kv", "web", "front"}},
		{"volume removed", func(m *meddler) {
			m.remove(m.ids["kv"])
			m.must(m.docker.VolumeRemove(m.Context(), "cara-"+m.project+".data", true))
		}, true, []string{"web", "front"}, []string{"web", "front"}},
		{"a container with forged labels of an older epoch", func(m *meddler) {
			labels := maps.Clone(m.labelsOf("web"))
			labels[api.LabelEpoch] = "0"
			m.forge(m.project+"-forged", labels)
		}, false, []string{"kv", "web", "front"}, []string{"kv", "web", "front"}},
		{
			"a container with the labels of another",
			func(m *meddler) { m.forge(m.project+"-double", m.labelsOf("web")) },
			false,
			[]string{"kv", "web", "front"},
			[]string{"kv", "web", "front"},
		},
		{"things with our labels of a project that is not there", func(m *meddler) {
			labels := map[string]string{api.LabelCluster: m.cluster, api.LabelNode: "n1", api.LabelProject: "nobody"}
			m.forge(m.project+"-orphan", labels)
			_, err := m.docker.VolumeCreate(m.Context(), volume.CreateOptions{Name: m.project + "-orphan", Labels: labels})
			m.must(err)
			_, err = m.docker.NetworkCreate(m.Context(), m.project+"-orphan", network.CreateOptions{Labels: labels})
			m.must(err)
		}, false, []string{"kv", "web", "front"}, []string{"kv", "web", "front"}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			m := m.in(t)
			before, starts := m.equal(t), m.starts()
			if c.off {
				m.stop()
			}
			c.meddle(m)
			if c.off {
				m.run(t)
			}
			m.reaches()
			after := m.equal(t)
			for _, service := range c.kept {
				keeps(t, before, after, m.project+"."+service)
			}
			for _, service := range c.calm {
				if at := m.starts()[service]; at != starts[service] {
					t.Errorf("service %s was started at %s and again at %s", service, starts[service], at)
				}
			}
			if p := m.wait(t, m.project, func(*carav1.Project) bool { return true }); p.GetStatus().GetPhase() != api.PhaseRunning {
				t.Errorf("phase %s", p.GetStatus().GetPhase())
			}
		})
		if !ok {
			break // the next would find the same
		}
	}
}

// newMeddler brings a project of three services up.
func newMeddler(t *testing.T, project string) *meddler {
	return newMeddlerOf(t, project, func(*agent.Config) {})
}

func newMeddlerOf(t *testing.T, project string, change func(*agent.Config)) *meddler {
	r := newReal(t)
	r.cfg.Restart.Limit = 100 // what is done by hand must not add up to a crash loop
	change(&r.cfg)
	r.run(t)
	m := &meddler{onDocker: r, docker: r.docker(t), project: fmt.Sprint(project, "-", os.Getpid())}
	m.put(m.project, three())
	m.wait(t, m.project, phase(api.PhaseRunning))
	return m.in(t)
}

// in is the meddler in a part of the test.
func (m *meddler) in(t *testing.T) *meddler {
	next := *m
	next.T, next.ids = t, map[string]string{}
	for at, id := range m.equal(t) {
		next.ids[strings.TrimPrefix(at, m.project+".")] = id
	}
	return &next
}

// starts are the times at which the containers of the services were started last.
func (m *meddler) starts() map[string]string {
	m.Helper()
	out := map[string]string{}
	for at, id := range m.equal(m.T) {
		c, err := m.docker.ContainerInspect(m.Context(), id)
		m.must(err)
		out[strings.TrimPrefix(at, m.project+".")] = c.State.StartedAt
	}
	return out
}

// reaches waits until web answers, and finds kv by its name.
func (m *meddler) reaches() {
	m.Helper()
	waitUntil(m.T, func() bool {
		ip, ok := m.agent.Endpoints().IP(m.project, "web")
		return ok && strings.Contains(get(m.T, "http://"+ip+":8080/"), "visits")
	})
}

// TestRealForeignThings creates foreign objects with our names or similar labels. They are never touched. The project
// reports what blocks it, and comes up once that is removed.
func TestRealForeignThings(t *testing.T) {
	t.Parallel()
	for i, c := range []struct {
		name string
		take func(m *meddler) (giveBack func())
	}{
		{"a container has the name", func(m *meddler) func() {
			m.remove(m.ids["web"])
			id := m.forge("cara-"+m.project+".web", map[string]string{"made": "by hand"})
			return func() { m.runs(id); m.remove(id) }
		}},
		{"a container of another cluster has the name", func(m *meddler) func() {
			m.remove(m.ids["web"])
			labels := m.labelsOf("front")
			labels[api.LabelCluster], labels[api.LabelService] = "another", "web"
			id := m.forge("cara-"+m.project+".web", labels)
			return func() { m.runs(id); m.remove(id) }
		}},
		{"a network has the name", func(m *meddler) func() {
			m.emptyNetwork()
			n, err := m.docker.NetworkCreate(m.Context(), "cara-"+m.project, network.CreateOptions{
				IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.215.7.0/28"}}},
			})
			m.must(err)
			return func() {
				_, err := m.docker.NetworkInspect(m.Context(), n.ID, network.InspectOptions{})
				m.must(err)
				m.must(m.docker.NetworkRemove(m.Context(), n.ID))
			}
		}},
		{"a volume has the name", func(m *meddler) func() {
			m.remove(m.ids["kv"])
			v := "cara-" + m.project + ".data"
			m.must(m.docker.VolumeRemove(m.Context(), v, true))
			_, err := m.docker.VolumeCreate(m.Context(), volume.CreateOptions{Name: v})
			m.must(err)
			return func() { m.must(m.docker.VolumeRemove(m.Context(), v, true)) }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMeddler(t, fmt.Sprint("foreign-", i))
			bystander := m.forge(m.project+"-bystander", map[string]string{api.LabelCluster: "another", api.LabelNode: "n1", api.LabelProject: m.project})
			t.Cleanup(func() {
				if err := m.docker.ContainerRemove(context.WithoutCancel(t.Context()), bystander, container.RemoveOptions{Force: true}); err != nil {
					t.Error(err)
				}
			})
			m.stop()
			giveBack := c.take(m)
			m.run(t)
			p := m.wait(t, m.project, phase(api.PhaseFailed))
			why := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase)
			if why.GetReason() != "NameTaken" || !strings.Contains(why.GetMessage(), "cara-"+m.project) {
				t.Errorf("it is Failed for %s: %s", why.GetReason(), why.GetMessage())
			}
			m.equal(t)
			giveBack()
			m.edit(m.project, func(p *carav1.Project) { p.Status.Epoch, p.Status.Phase = p.Status.Epoch+1, api.PhaseScheduled })
			m.wait(t, m.project, phase(api.PhaseRunning))
			m.reaches()
			m.equal(t)
			m.runs(bystander)
		})
	}
}

// runs checks that a container was left alone.
func (m *meddler) runs(id string) {
	m.Helper()
	if c, err := m.docker.ContainerInspect(m.Context(), id); err != nil || !c.State.Running || c.RestartCount != 0 {
		m.Errorf("the container %.12s, which is not ours, does not run: %v", id, err)
	}
}
