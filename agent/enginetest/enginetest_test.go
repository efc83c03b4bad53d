package enginetest_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/agent/docker"
	"github.com/caravanserai/cara/agent/enginetest"
	"github.com/caravanserai/cara/agent/enginetest/fake"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFake(t *testing.T) {
	enginetest.Run(t, enginetest.Fixture{
		Engine: fake.New(testimage.Job), Image: testimage.Job, Job: "/job", Tools: testimage.Job, Sized: []string{"sized"},
		Cleanup: func(context.Context, map[string]string) error { return nil },
	})
}

func TestDocker(t *testing.T) {
	host := testdocker.Engine(t)
	testdocker.Images(t, host, testimage.Job, testimage.Busybox)
	engine, err := docker.New(docker.Config{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	enginetest.Run(t, enginetest.Fixture{
		Engine: engine, Image: testimage.Job, Job: "/job", Tools: testimage.Busybox,
		Sized:   []string{"sh", "-c", `until [ "$(stty size)" = "30 100" ]; do sleep 0.1; done`},
		Left:    func(t *testing.T, id string) int { return beside(t, host, id) },
		Cleanup: func(ctx context.Context, labels map[string]string) error { return testdocker.Remove(ctx, host, labels) },
	})
}

// beside counts a container's processes other than its first.
func beside(t *testing.T, host, id string) int {
	t.Helper()
	docker, err := testdocker.Client(host)
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	top, err := docker.ContainerTop(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(top.Processes) - 1
}
