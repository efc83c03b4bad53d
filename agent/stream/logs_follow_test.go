package stream

import (
	"context"
	"errors"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// vanishing lists a container that is removed before it can be inspected.
type vanishing struct {
	engine.Engine
	inspect error
}

func (vanishing) ListContainers(context.Context, map[string]string) ([]engine.Container, error) {
	return []engine.Container{{ID: "old", Labels: map[string]string{api.LabelService: "web"}}}, nil
}

func (e vanishing) InspectContainer(context.Context, string) (engine.Container, error) {
	return engine.Container{}, e.inspect
}

// TestFollowAwaitsASuccessor: a container that disappears while it is looked at does not end the log of a service that gets
// another one. The log ends with the project.
func TestFollowAwaitsASuccessor(t *testing.T) {
	spec := &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web"}}}
	down := errors.New("the engine is down")
	for name, c := range map[string]struct {
		want    *step.Want
		inspect error
		over    bool
		err     error
	}{
		"it is replaced":        {&step.Want{Spec: spec}, engine.ErrNotFound, false, nil},
		"the project is gone":   {nil, engine.ErrNotFound, true, nil},
		"it is deleted":         {&step.Want{Spec: spec, Remove: true}, engine.ErrNotFound, true, nil},
		"it is not inspectable": {&step.Want{Spec: spec}, down, false, down},
	} {
		f := &logFollower{
			server: &Server{Engine: vanishing{inspect: c.inspect}, Want: func(string) *step.Want { return c.want }}, request: &carav1.LogsRequest{Name: "p"},
			places: map[string]*logPlace{"old": {}}, begun: true,
		}
		if over, err := f.look(t.Context()); over != c.over || !errors.Is(err, c.err) {
			t.Errorf("%s: over %v, %v; want %v, %v", name, over, err, c.over, c.err)
		}
	}
}
