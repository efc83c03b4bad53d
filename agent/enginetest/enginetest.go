// Package enginetest is the contract suite for engine.Engine. The in-memory engine of enginetest/fake and agent/docker with
// a real engine both pass it, so tests with the fake are valid for the real one.
//
// It is used only in tests.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Fixture is an engine under test.
type Fixture struct {
	Engine engine.Engine
	// Image contains the fixtures' job.
	Image string
	// Job is the path of the job in the image.
	Job string
	// Tools is an image with `cat`, `sleep` and the commands in Sized.
	Tools string
	// Sized is a command that ends once its terminal has 30 rows and 100 columns.
	Sized []string
	// Left counts the processes in a container besides its main process. Nil if that is not possible.
	Left func(t *testing.T, id string) int
	// Cleanup removes everything with these labels, whether the test passed or not.
	Cleanup func(ctx context.Context, labels map[string]string) error
}

// Run runs the suite. Each test has its own names and labels.
func Run(t *testing.T, f Fixture) {
	for name, test := range map[string]func(*testing.T, *suite){
		"a container's life":             life,
		"pause":                          paused,
		"an exit is recorded":            exits,
		"limits":                         limits,
		"a taken name":                   takenName,
		"networks":                       networks,
		"a network in use":               busyNetwork,
		"volumes":                        volumes,
		"a Managed volume":               managedVolume,
		"a volume that is missing":       missingVolume,
		"a path of the host":             hostPath,
		"a container before its network": beforeNetwork,
		"what is gone":                   gone,
		"images":                         images,
		"the store of images":            imageStore,
		"logs":                           logs,
		"a command's output":             commandOutput,
		"a command's input":              commandInput,
		"a command's terminal":           commandTerminal,
		"a command that is left":         commandLeft,
		"stats":                          stats,
		"events":                         events,
		"no answer is not gone":          noAnswer,
		"machine":                        machine,
	} {
		t.Run(name, func(t *testing.T) {
			id := fmt.Sprintf("et%d-%d", os.Getpid(), time.Now().UnixNano()%1e9)
			s := &suite{Fixture: f, project: id, labels: map[string]string{
				api.LabelCluster: "enginetest-" + id, api.LabelNode: "n1", api.LabelProject: id, api.LabelUID: "u1", api.LabelEpoch: "1",
			}}
			t.Cleanup(func() {
				for _, cluster := range []string{"enginetest-" + id, "foreign-" + id} {
					if err := f.Cleanup(context.WithoutCancel(t.Context()), map[string]string{api.LabelCluster: cluster}); err != nil {
						t.Error(err)
					}
				}
			})
			test(t, s)
		})
	}
}

type suite struct {
	Fixture
	project string
	labels  map[string]string
}

// foreign returns the labels of another cluster.
func (s *suite) foreign() map[string]string {
	labels := maps.Clone(s.labels)
	labels[api.LabelCluster] = "foreign-" + s.project
	return labels
}

// older returns the labels of an older assignment of the same project.
func (s *suite) older() map[string]string {
	labels := maps.Clone(s.labels)
	labels[api.LabelEpoch] = "0"
	return labels
}

func (s *suite) name() string { return "cara-" + s.project }

func (s *suite) spec(args ...string) engine.ContainerSpec {
	return engine.ContainerSpec{
		Name: s.name() + ".a", Labels: s.labels, Network: s.name(),
		Service: &carav1.Service{Name: "a", Image: s.Image, Args: args, StopGracePeriod: "1s"},
	}
}

func (s *suite) network(t *testing.T) engine.Network {
	t.Helper()
	n, err := s.Engine.CreateNetwork(t.Context(), s.name(), s.labels, 3)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *suite) create(t *testing.T, args ...string) string {
	t.Helper()
	id, err := s.Engine.CreateContainer(t.Context(), s.spec(args...))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *suite) start(t *testing.T, args ...string) string {
	t.Helper()
	id := s.create(t, args...)
	must(t, s.Engine.StartContainer(t.Context(), id))
	return id
}

func (s *suite) inspect(t *testing.T, id string) engine.Container {
	t.Helper()
	c, err := s.Engine.InspectContainer(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !done() {
		select {
		case <-deadline:
			t.Fatal("not within 20 seconds")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
