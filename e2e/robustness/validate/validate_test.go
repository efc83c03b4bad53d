package validate

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/e2e/robustness/model"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// change is an event of the project p with UID u, unless f says otherwise.
func change(revision int64, value int, f ...func(*model.Event)) model.Event {
	e := model.Event{Revision: revision, Version: revision, Received: 10 * revision, Key: "p", UID: "u", Value: value, Generation: int32(revision)}
	for _, f := range f {
		f(&e)
	}
	return e
}

func deletion(revision int64) model.Event {
	return change(revision, model.Absent, func(e *model.Event) { e.Deleted, e.Version, e.Generation = true, 0, 0 })
}

func called(kind model.Kind, start, end int64, value int, revision int64) model.Operation {
	return model.Operation{
		Start: start, End: end, Call: model.Call{Kind: kind, Key: "p", Value: value},
		Result: model.Result{Outcome: model.Done, Value: value, Revision: revision},
	}
}

// good is a history without mistakes: three writes and a deletion, seen by two watches, a list and a read.
func good() *model.History {
	events := []model.Event{change(1, 7), change(2, 8), deletion(3), change(4, 9, func(e *model.Event) { e.UID = "v" })}
	return &model.History{
		Operations: []model.Operation{
			called(model.Create, 1, 11, 7, 1), called(model.Put, 12, 21, 8, 2), called(model.Remove, 22, 31, 0, 0), called(model.Create, 32, 41, 9, 4),
			{Start: 42, End: 43, Call: model.Call{Kind: model.Read, Key: "p"}, Result: model.Result{Outcome: model.Done, Value: 9, Revision: 4}},
		},
		Listings: []model.Listing{{Start: 44, End: 45, Revision: 4, Values: map[string]int{"p": 9}}},
		Watches: []model.Watch{
			{Watcher: 0, Segments: []model.Segment{{From: 0, To: 4, Events: slices.Clone(events)}}},
			{Watcher: 1, Segments: []model.Segment{{From: 0, To: 4, Events: slices.Clone(events)}}},
		},
	}
}

// TestHistoryFindsMistakes makes one mistake at a time in a good history.
func TestHistoryFindsMistakes(t *testing.T) {
	events := func(h *model.History, watch int) *[]model.Event { return &h.Watches[watch].Segments[0].Events }
	for name, tt := range map[string]struct {
		spoil func(h *model.History)
		want  string // part of a problem; empty: there is none
	}{
		"nothing":                   {func(*model.History) {}, ""},
		"a watch loses a change":    {func(h *model.History) { *events(h, 1) = slices.Delete(*events(h, 1), 1, 2) }, "watch 1: it has 0 of 1 changes of revision 2"},
		"a watch loses the last":    {func(h *model.History) { *events(h, 1) = (*events(h, 1))[:3] }, "watch 1: it has 0 of 1 changes of revision 4"},
		"a watch ends before it":    {func(h *model.History) { *events(h, 1), h.Watches[1].Segments[0].To = (*events(h, 1))[:3], 3 }, ""},
		"a watch repeats a change":  {func(h *model.History) { *events(h, 1) = slices.Insert(*events(h, 1), 1, (*events(h, 1))[0]) }, "watch 1: revision 1 of p comes twice"},
		"a watch goes back":         {func(h *model.History) { e := *events(h, 1); e[0], e[1] = e[1], e[0] }, "watch 1: revision 1 of p comes after revision 2"},
		"a watch has another value": {func(h *model.History) { (*events(h, 1))[1].Value = 6 }, "watch 1: p has the value 6 at revision 2, another watch says 8"},
		"an object of another time": {func(h *model.History) { (*events(h, 1))[1].Version = 1 }, "watch 1: p comes with resourceVersion 1 in revision 2"},
		"a lost write":              {func(h *model.History) { h.Operations[1].Revision, h.Watches[0].Segments[0].To = 5, 5 }, "put of p was acknowledged with revision 5, and no watch has it"},
		"a read of nothing":         {func(h *model.History) { h.Operations[4].Result.Value = 8 }, "read of p gave the value 8 at revision 4, a watch says 9"},
		"a stale read":              {func(h *model.History) { h.Operations[4].Result.Value, h.Operations[4].Revision = 8, 2 }, "no order of the calls"},
		"a stale read of two servers": {func(h *model.History) {
			h.Operations[4].Result.Value, h.Operations[4].Revision, h.Operations[4].Server, h.StaleReads = 8, 2, 1, true
		}, ""},
		"a list of another time":     {func(h *model.History) { h.Listings[0].Values = map[string]int{"p": 8} }, "a list at revision 4 has map[p:8], watches say map[p:9]"},
		"a stale list":               {func(h *model.History) { h.Listings[0] = model.Listing{Start: 44, End: 45, Revision: 3} }, "no order of the calls"},
		"an answer without a reason": {func(h *model.History) { h.Operations[4].Odd, h.Operations[4].Error = true, "Internal" }, "got an answer that no client may get: Internal"},
		"an unknown write that was done": {func(h *model.History) {
			h.Operations[1].Result, h.Operations[1].End = model.Result{Outcome: model.Unknown}, 13
		}, ""},
		"an unknown write that was not": {func(h *model.History) {
			h.Operations = append(h.Operations, model.Operation{
				Start: 2, End: 3, Call: model.Call{Kind: model.Put, Key: "p", Value: 5}, Result: model.Result{Outcome: model.Unknown},
			})
		}, ""},
		"a deletion that nobody called": {func(h *model.History) { h.Operations = slices.Delete(h.Operations, 2, 3) }, "no order of the calls"},
		"an unknown deletion":           {func(h *model.History) { h.Operations[2].Result = model.Result{Outcome: model.Unknown} }, ""},
		"an old value": {func(h *model.History) {
			for i := range 2 {
				*events(h, i) = append(*events(h, i), change(5, 7, func(e *model.Event) { e.UID = "v" }))
				h.Watches[i].Segments[0].To = 5
			}
		}, "p has the value 7 again at revision 5"},
		"a value from nowhere": {func(h *model.History) {
			for i := range 2 {
				*events(h, i) = append(*events(h, i), change(5, 99, func(e *model.Event) { e.UID = "v" }))
				h.Watches[i].Segments[0].To = 5
			}
		}, "p has the value 99 at revision 5, and no client asked for it"},
		"a generation that goes back": {func(h *model.History) {
			for i := range 2 {
				(*events(h, i))[1].Generation = 0
			}
		}, "p goes back from generation 1 to 0 at revision 2"},
		"an epoch that goes back": {func(h *model.History) {
			for i := range 2 {
				(*events(h, i))[0].Epoch = 2
				(*events(h, i))[1].Epoch = 1
			}
		}, "p goes back from epoch 2 to 1 at revision 2"},
		"a value without a generation": {func(h *model.History) {
			for i := range 2 {
				(*events(h, i))[1].Generation = 1
			}
		}, "p changes from 7 to 8 at revision 2 without a new generation"},
		"a read of an unknown revision": {func(h *model.History) {
			h.Operations[4].Revision, h.Watches[0].Segments[0].To = 5, 5
		}, "p was read with resourceVersion 5, and no watch has it"},
		"a watch has another UID": {func(h *model.History) { (*events(h, 1))[1].UID = "w" }, "watch 1: p has the value 8 at revision 2, another watch says 8"},
		"a deletion of another object": {func(h *model.History) {
			(*events(h, 0))[2].UID, (*events(h, 1))[2].UID = "u", "w"
		}, "watch 1: p has the value 0 at revision 3, another watch says 0"},
		"a deletion with only the name": {func(h *model.History) { (*events(h, 1))[2].UID = "" }, ""},
		"a watch has no deletion":       {func(h *model.History) { (*events(h, 1))[2].Deleted, (*events(h, 1))[2].Version = false, 3 }, "watch 1: p has the value 0 at revision 3"},
		"a watch repeats its state": {func(h *model.History) {
			s := &h.Watches[1].Segments[0]
			s.From, s.Initial = 1, s.Events[:1]
		}, "watch 1: revision 1 of p comes after revision 1"},
		"a node without an epoch": {func(h *model.History) {
			for i := range 2 {
				(*events(h, i))[1].Node = "n2"
			}
		}, "p goes to node n2 at revision 2 without a new epoch"},
		"a server goes back": {func(h *model.History) {
			h.Operations[4].Result.Value, h.Operations[4].Revision, h.StaleReads = 8, 2, true
			h.Operations[3].Server, h.Operations[4].Server = 1, 1
		}, "server 1: p was read with resourceVersion 2 after the server had answered with revision 4, and it had changed at 3"},
		"a server loses what it had": {func(h *model.History) {
			h.Operations[4].Result, h.StaleReads = model.Result{Outcome: model.Missing}, true
		}, "server 0: p was not found after the server had answered with revision 4, which has it"},
		"another server does not have it yet": {func(h *model.History) {
			h.Operations[4].Result, h.Operations[4].Server, h.StaleReads = model.Result{Outcome: model.Missing}, 1, true
		}, ""},
		"a server lists an older time": {func(h *model.History) {
			h.Listings[0], h.StaleReads = model.Listing{Start: 44, End: 45, Revision: 3}, true
		}, "server 0: a list has revision 3 after the server had answered with revision 4"},
		"a loop writes after its lease": {func(h *model.History) {
			h.Terms = []model.Term{
				{Server: 0, Loop: "gc", Lease: 10}, {Server: 0, Loop: "gc", Lease: 10, Write: 11}, {Server: 1, Loop: "gc", Lease: 12}, {Server: 0, Loop: "gc", Lease: 10, Write: 13},
			}
		}, "server 0 wrote revision 13 for the loop gc under its lease of revision 10, after server 1 had got the lease at revision 12"},
		"a loop goes to another server and comes back": {func(h *model.History) {
			h.Terms = []model.Term{
				{Server: 0, Loop: "gc", Lease: 10},
				{Server: 0, Loop: "gc", Lease: 10, Write: 11},
				{Server: 1, Loop: "gc", Lease: 12},
				{Server: 1, Loop: "gc", Lease: 12, Write: 13},
				{Server: 0, Loop: "gc", Lease: 14},
				{Server: 0, Loop: "gc", Lease: 14, Write: 15},
				{Server: 2, Loop: "sources", Lease: 11},
			}
		}, ""},
		"a host that was there at the start": {func(h *model.History) {
			for i := range 2 {
				h.Watches[i].Segments[0].Initial = []model.Event{change(0, 1, func(e *model.Event) { e.Key, e.Hosts = "q", []string{"h"} })}
				(*events(h, i))[0].Hosts = []string{"h"}
			}
			h.Listings = nil
		}, "q and p both have the host h at revision 1"},
		"a list without what was there at the start": {func(h *model.History) {
			for i := range 2 {
				h.Watches[i].Segments[0].Initial = []model.Event{change(0, 1, func(e *model.Event) { e.Key = "q" })}
			}
		}, "a list at revision 4 has map[p:9], watches say map[p:9 q:1]"},
		"an epoch below that at the start": {func(h *model.History) {
			for i := range 2 {
				s := &h.Watches[i].Segments[0]
				s.From, s.Initial, s.Events = 1, []model.Event{s.Events[0]}, s.Events[1:]
				s.Initial[0].Epoch, s.Events[0].Epoch = 2, 1
			}
		}, "p goes back from epoch 2 to 1 at revision 2"},
		"a watch that begins later": {func(h *model.History) {
			s := &h.Watches[1].Segments[0]
			s.From, s.Initial, s.Events = 2, []model.Event{s.Events[1]}, s.Events[2:]
		}, ""},
		"a refused write": {func(h *model.History) {
			h.Operations = append(h.Operations, model.Operation{
				Start: 44, End: 45, Call: model.Call{Kind: model.Swap, Key: "p", From: 9, Value: 5}, Result: model.Result{Outcome: model.Refused},
			})
		}, ""},
		"many mistakes": {func(h *model.History) {
			for range 2 * most {
				h.Operations = append(h.Operations, model.Operation{
					Start: 44, End: 45, Call: model.Call{Kind: model.Read, Key: "p"}, Result: model.Result{Outcome: model.Unknown, Odd: true},
				})
			}
		}, "and 20 more like these"},
		"a project fails": {func(h *model.History) {
			for i := range 2 {
				(*events(h, i))[1].Phase, (*events(h, i))[1].Why = "Failed", "NameTaken"
			}
		}, "p is Failed at revision 2, and no fault of a run is a reason for that: NameTaken"},
		"two projects with one host": {func(h *model.History) {
			for i := range 2 {
				(*events(h, i))[0].Hosts, (*events(h, i))[1].Hosts = []string{"h"}, []string{"h"}
				*events(h, i) = slices.Insert(*events(h, i), 2, change(2, 1, func(e *model.Event) { e.Key, e.Hosts = "q", []string{"h"} }))
			}
		}, "both have the host h at revision 2"},
		"a host that is handed on": {func(h *model.History) {
			for i := range 2 {
				(*events(h, i))[0].Hosts = []string{"h"}
				*events(h, i) = slices.Insert(*events(h, i), 2, change(2, 1, func(e *model.Event) { e.Key, e.Hosts = "q", []string{"h"} }))
			}
			h.Listings = nil
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			tt.spoil(h)
			problems, _ := History(h, time.Minute)
			text := strings.Join(problems, "\n")
			if (tt.want == "") != (text == "") || !strings.Contains(text, tt.want) {
				t.Errorf("problems %q, want %q", text, tt.want)
			}
		})
	}
}

// TestLawful: what git does not declare must not be there, and what it declares must.
func TestLawful(t *testing.T) {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "a"}, Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Image: testimage.WebV1}}},
		Status: &carav1.ProjectStatus{Phase: "Running", Conditions: []*carav1.Condition{{Type: "Ready", Status: "True"}}},
	}
	for name, tt := range map[string]struct {
		declared map[string]string
		phase    string
		want     string
	}{
		"as declared":       {map[string]string{"a": testimage.WebV1}, api.PhaseRunning, ""},
		"another image":     {map[string]string{"a": testimage.WebV2}, api.PhaseRunning, "a has the image"},
		"one is missing":    {map[string]string{"a": testimage.WebV1, "b": testimage.WebV1}, api.PhaseRunning, "b is missing"},
		"one is not pruned": {nil, api.PhaseRunning, "git does not declare it"},
		"one does not run":  {map[string]string{"a": testimage.WebV1}, api.PhasePending, "a is Pending"},
		"one has failed":    {map[string]string{"a": testimage.WebV1}, api.PhaseFailed, "a is Failed"},
	} {
		p.Status.Phase = tt.phase
		err := lawful([]*carav1.Project{p}, tt.declared)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestLost: data that was seen must be there at the end, and must not be new.
func TestLost(t *testing.T) {
	seen := map[string]string{"n1 a": "10:00", "n1 b": "10:01"}
	for name, tt := range map[string]struct {
		now  map[string]string
		want []string
	}{
		"all is there": {map[string]string{"n1 a": "10:00", "n1 b": "10:01", "n1 c": "10:02"}, nil},
		"one is gone":  {map[string]string{"n1 a": "10:00"}, []string{`the data of n1 b was made at 10:01, and is now from ""`}},
		"one is new":   {map[string]string{"n1 a": "10:05", "n1 b": "10:01"}, []string{`the data of n1 a was made at 10:00, and is now from "10:05"`}},
	} {
		if got := lost(seen, tt.now); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
