package api_test

import (
	"maps"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestRestarts(t *testing.T) {
	type tokens = map[string]string
	for name, c := range map[string]struct {
		status   *carav1.ProjectStatus
		services []string // of one more request, whose token is new
		before   tokens
		after    tokens
	}{
		"the first request": {&carav1.ProjectStatus{}, []string{"a"}, nil, tokens{"a": "new"}},
		"a second one of another service": {
			&carav1.ProjectStatus{RestartToken: "t1", RestartServices: []string{"a"}, Restarts: tokens{"a": "t1"}},
			[]string{"b"},
			tokens{"a": "t1"},
			tokens{"a": "t1", "b": "new"},
		},
		"a second one of the same service": {
			&carav1.ProjectStatus{RestartToken: "t1", RestartServices: []string{"a"}, Restarts: tokens{"a": "t1"}},
			[]string{"a"},
			tokens{"a": "t1"},
			tokens{"a": "new"},
		},
		"all": {
			&carav1.ProjectStatus{RestartToken: "t1", Restarts: tokens{"a": "t1"}},
			nil,
			tokens{"a": "t1"},
			tokens{"a": "new", "b": "new"},
		},
		"a service that left": {
			&carav1.ProjectStatus{RestartToken: "t1", Restarts: tokens{"gone": "t1"}},
			[]string{"b"},
			tokens{"gone": "t1"},
			tokens{"b": "new"},
		},
		"an older server named one": {
			&carav1.ProjectStatus{RestartToken: "t1", RestartServices: []string{"a"}},
			[]string{"b"},
			tokens{"a": "t1"},
			tokens{"a": "t1", "b": "new"},
		},
		"an older server named all": {
			&carav1.ProjectStatus{RestartToken: "t1"},
			[]string{"b"},
			tokens{"a": "t1", "b": "t1"},
			tokens{"a": "t1", "b": "new"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &carav1.Project{
				Spec:   &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a"}, {Name: "b"}}},
				Status: c.status,
			}
			if got := api.Restarts(p); !maps.Equal(got, c.before) {
				t.Errorf("before %v, want %v", got, c.before)
			}
			if got := api.AddRestart(p, c.services, "new"); !maps.Equal(got, c.after) {
				t.Errorf("after %v, want %v", got, c.after)
			}
		})
	}
}

func TestRescheduleAfter(t *testing.T) {
	if d, never, err := api.RescheduleAfter("never"); d != 0 || !never || err != nil {
		t.Error("never")
	}
	if d, never, err := api.RescheduleAfter(""); d != time.Minute || never || err != nil {
		t.Error("default")
	}
}
