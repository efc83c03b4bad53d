package e2e

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// TestCredentialHelper: the node's helper is asked at pull time, so that a login which has ended is replaced without a failure, and
// no text shows it.
func TestCredentialHelper(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	w := newWorld(t, options{})
	registry := testregistry.New(t)
	images := []string{registry.Push(t, testimage.WebV1, "team/one:1"), registry.Push(t, testimage.WebV2, "team/two:1"), registry.Push(t, testimage.KV, "team/three:1")}
	helper, give := testregistry.NewLoginHelper(t, "ada")
	login := func(password string) {
		give(password)
		registry.TokenLogin("ada", password)
	}
	w.agent("n1", host, nil, "--credential-helper", registry.Addr()+"="+helper.Path)
	run := func(short, image string) string {
		name := w.name(short)
		w.apply(project(name, "services: [{name: web, image: "+image+"}]"))
		return name
	}
	login("hunter2-planted-1")
	w.running(run("one", images[0]))
	if n := len(helper.Asked()); n != 1 {
		t.Errorf("the helper was asked %d times for one pull", n)
	}
	login("hunter2-planted-2") // the login that the agent has kept is no longer valid
	w.running(run("two", images[1]))
	if n := len(helper.Asked()); n != 2 {
		t.Errorf("the helper was asked %d times for two pulls with one login that ended", n)
	}
	// A login that the registry refuses is the project's failure, with what to do.
	registry.TokenLogin("ada", "another")
	failing := run("three", images[2])
	w.until(failing, "has failed", func(p *carav1.Project) bool { return p.GetStatus().GetPhase() == api.PhaseFailed })
	w.nowhere("hunter2-planted")
	if log := w.Agents["n1"].Tail(100_000); strings.Contains(log, "hunter2-planted") {
		t.Errorf("the agent's log has the login:\n%s", log)
	}
}
