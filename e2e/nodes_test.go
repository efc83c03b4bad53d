package e2e

import (
	"net"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// twoNodes is a cluster with n1 on the engine that the tests share, and n2 on one in a network namespace.
func twoNodes(t *testing.T, serverFlags ...string) (*testCluster, *testdocker.Second) {
	t.Helper()
	return twoNodesWith(t, nil, serverFlags...)
}

// twoNodesWith is the same with additional flags of both agents.
func twoNodesWith(t *testing.T, agentFlags []string, serverFlags ...string) (*testCluster, *testdocker.Second) {
	t.Helper()
	first := testdocker.Engine(t)
	t.Parallel()
	second := secondEngine(t)
	w := newWorld(t, options{listen: wildcard(t), serverFlags: serverFlags})
	testdocker.Images(t, first, testimage.WebV1, testimage.WebV2, testimage.KV, testimage.Job)
	port, err := testcluster.FreePort()
	w.must(err)
	w.pools["n1"] = <-pools
	w.engines = append(w.engines, first)
	// n2 must reach the ingress of n1, so that listens where the namespace sees this machine.
	w.startAgent(testcluster.Agent{Name: "n1", DockerHost: first, Pool: w.pools["n1"], Ingress: net.JoinHostPort(second.Gateway, port), Flags: agentFlags})
	w.agent("n2", second.Host, second, agentFlags...)
	return w, second
}

// TestTwoNodes: projects are spread, each node answers for all hosts, what ran on a lost node moves, and a node that
// comes back gives up what is no longer its own.
func TestTwoNodes(t *testing.T) {
	w, second := twoNodes(t)
	repo := w.repository("platform")
	var names []string
	for _, short := range []string{"a", "b", "c", "d"} {
		name := w.name(short)
		names = append(names, name)
		repo.Write(short+".yaml", w.web(name, testimage.WebV1)+"  rescheduleAfter: 5s\n")
	}
	patient := w.name("patient")
	repo.Write("patient.yaml", w.web(patient, testimage.WebV1)+"  rescheduleAfter: never\n  nodeSelector: {}\n")
	w.push(repo, "Start five projects")
	w.running(append(names, patient)...)
	on := map[string][]string{}
	for _, name := range append(names, patient) {
		node := w.project(name).GetStatus().GetNodeRef()
		on[node] = append(on[node], name)
	}
	if len(on["n1"]) < 2 || len(on["n2"]) < 2 {
		t.Fatalf("five projects are spread like this: %v", on)
	}
	for _, name := range append(names, patient) {
		w.answers("n1", name+".test", "/", 200, "web v1")
		w.answers("n2", name+".test", "/", 200, "web v1")
	}

	heal := w.cut(second)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitNode(ctx, "n2", api.NodeNotReady))
	for _, name := range names {
		w.until(name, "runs on n1", func(p *carav1.Project) bool {
			return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == "n1"
		})
		w.answers("n1", name+".test", "/", 200, "web v1")
		if p := w.project(name); p.GetStatus().GetEpoch() < 1 {
			t.Errorf("project %s has epoch %d", name, p.GetStatus().GetEpoch())
		}
	}
	held, err := w.Held(t.Context(), second.Host, "")
	w.must(err)
	if len(held.Containers) != len(on["n2"]) {
		t.Errorf("the lost node still has\n%s\nwant %d containers: nobody told it to stop", held, len(on["n2"]))
	}
	if p := w.project(patient); p.GetStatus().GetNodeRef() == "n2" {
		w.says("the list", w.ctl("", "get", "projects").Stdout, "Unknown (last seen")
	}

	heal()
	w.ready("n2")
	for _, name := range names {
		w.must(w.AwaitNothing(ctx, second.Host, name))
		if ids := w.containers(w.engines[0], name); len(ids) != 1 {
			t.Errorf("project %s has the containers %v on n1", name, ids)
		}
	}
	w.running(append(names, patient)...)
	w.equal("n1", w.engines[0])
	w.equal("n2", second.Host)
	w.answers("n2", names[0]+".test", "/", 200, "web v1")
}

// TestBinpack: with --placement binpack projects share a node as long as they fit on it.
func TestBinpack(t *testing.T) {
	w, _ := twoNodes(t, "--placement", "binpack")
	on := map[string]int{}
	for _, short := range []string{"a", "b", "c"} {
		name := w.name(short)
		w.apply(w.web(name, testimage.WebV1))
		w.running(name)
		on[w.project(name).GetStatus().GetNodeRef()]++
	}
	if len(on) != 1 {
		t.Errorf("three projects that fit on one node are on %v", on)
	}
}
