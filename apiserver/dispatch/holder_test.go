package dispatch

import (
	"maps"
	"testing"
	"time"

	"github.com/caravanserai/cara/apiserver/directory"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// fixed is a directory that says what a test sets.
type fixed struct {
	directory.Directory
	holders map[string]directory.Holder
}

func (f fixed) Holder(node string) (directory.Holder, bool) {
	h, ok := f.holders[node]
	return h, ok
}

// TestSightings: whichever sign of a server's loss comes first, its nodes are found once, and no others.
func TestSightings(t *testing.T) {
	begin := time.Unix(1000, 0)
	both := map[string]*carav1.Server{"a": {}, "b": {}}
	alone := map[string]*carav1.Server{"b": {}}
	tests := []struct {
		name  string
		steps func(s sightings, dir fixed) map[string]string
		want  map[string]string
	}{
		{"the sessions vanish first", func(s sightings, dir fixed) map[string]string {
			delete(dir.holders, "n1")
			s.note("n1", dir, begin)
			if early := s.lost(both, begin); len(early) > 0 {
				t.Errorf("nodes of a server that runs are lost: %v", early)
			}
			return s.lost(alone, begin.Add(time.Second))
		}, map[string]string{"n1": "a"}},
		{"the server vanishes first", func(s sightings, dir fixed) map[string]string {
			s.lost(alone, begin)
			delete(dir.holders, "n1")
			s.note("n1", dir, begin)
			return s.lost(alone, begin)
		}, map[string]string{"n1": "a"}},
		{"the agent has left long before", func(s sightings, dir fixed) map[string]string {
			delete(dir.holders, "n1")
			s.note("n1", dir, begin)
			s.note("n1", dir, begin.Add(apart)) // nothing new
			return s.lost(alone, begin.Add(apart+time.Second))
		}, nil},
		{"the agent is at the other server", func(s sightings, dir fixed) map[string]string {
			dir.holders["n1"] = directory.Holder{Server: "b"}
			s.note("n1", dir, begin)
			return s.lost(alone, begin)
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, dir := newSightings(), fixed{holders: map[string]directory.Holder{"n1": {Server: "a"}}}
			s.note("n1", dir, begin)
			if got := test.steps(s, dir); !maps.Equal(got, test.want) {
				t.Errorf("lost are %v, want %v", got, test.want)
			}
			if again := s.lost(map[string]*carav1.Server{}, begin); len(test.want) > 0 && len(again) > 0 {
				t.Errorf("found twice: %v", again)
			}
		})
	}
}
