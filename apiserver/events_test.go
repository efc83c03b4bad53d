package apiserver

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// eventsOf returns events about a number of projects in turn: project-0, project-1 and so on.
func eventsOf(projects, events int) []proto.Message {
	now := timestamppb.Now()
	out := make([]proto.Message, events)
	for i := range out {
		out[i] = &carav1.Event{
			ApiVersion: api.APIVersion, Kind: api.KindEvent, Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("%06d", i), CreationTimestamp: now},
			Type: string(api.EventNormal), Reason: "Test", Message: fmt.Sprint("event ", i), Count: 1, FirstTime: now, LastTime: now,
			Object: &carav1.ObjectRef{Kind: api.KindProject, Name: fmt.Sprintf("project-%d", i%projects)},
		}
	}
	return out
}

// A list for one object has its events, in both orders, in pages of each size.
func TestEventsOfOneObject(t *testing.T) {
	h := newHouse(t, nil)
	all := eventsOf(3, 60)
	h.put(t, all...)
	events := carav1.NewEventServiceClient(h.as(t, "viewer"))
	for _, newest := range []bool{false, true} {
		var want []string
		for _, e := range all {
			if e := e.(*carav1.Event); e.GetObject().GetName() == "project-1" {
				want = append(want, e.GetMetadata().GetName())
			}
		}
		if newest {
			slices.Reverse(want)
		}
		for _, limit := range []int32{0, 1, 7, 20, 21} {
			var got []string
			req := &carav1.ListEventsRequest{Kind: api.KindProject, Name: "project-1", NewestFirst: newest, Limit: limit}
			for pages := 1; ; pages++ {
				page, err := events.ListEvents(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page.GetItems() {
					got = append(got, e.GetMetadata().GetName())
				}
				if limit > 0 && len(page.GetItems()) > int(limit) {
					t.Errorf("a page of %d has %d events", limit, len(page.GetItems()))
				}
				if req.PageToken = page.GetMetadata().GetNextPageToken(); req.GetPageToken() == "" || pages > len(all) {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("newest first: %v, limit %d: got %v, want %v", newest, limit, got, want)
			}
		}
	}
	for _, req := range []*carav1.ListEventsRequest{
		{Kind: api.KindNode, Name: "project-1"}, {Kind: api.KindProject, Name: "project"}, {Kind: api.KindProject + "/project-1"},
	} {
		if page, err := events.ListEvents(t.Context(), req); err != nil || len(page.GetItems()) > 0 {
			t.Errorf("%v: got %v, %v, want no event", req, page.GetItems(), err)
		}
	}
}

// BenchmarkEventsOfOneObject is a list of the 10 events of one project beside those of the others. The page of a project asks for
// it each time it is rendered.
func BenchmarkEventsOfOneObject(b *testing.B) {
	for _, projects := range []int{10, 1000, 10_000} {
		h := newHouse(b, nil)
		for batch := range slices.Chunk(eventsOf(projects, 10*projects), 100) {
			h.put(b, batch...)
		}
		events := carav1.NewEventServiceClient(h.as(b, "viewer"))
		b.Run(fmt.Sprintf("projects=%d", projects), func(b *testing.B) {
			parallel(b, 1, func(_, i int) error {
				_, err := events.ListEvents(b.Context(), &carav1.ListEventsRequest{
					Kind: api.KindProject, Name: fmt.Sprintf("project-%d", i%projects), NewestFirst: true,
				})
				return err
			})
		})
	}
}
