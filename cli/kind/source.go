package kind

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Source is the kind Source.
func Source() Kind {
	return Kind{
		Name: api.KindSource, Plural: "sources", aliases: []string{"src"},
		Columns: []string{"NAME", "READY", "PROJECTS", "REVISION", "STATUS", "AGE"},
		wide:    []string{"FROM", "REF", "POLLED", "NEXT", "LAST DELIVERY"},
		Row:     sourceRow,
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewSourceServiceClient(conn).ListSources(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
		Get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			return message(carav1.NewSourceServiceClient(conn).GetSource(ctx, ByName(name)))
		},
		Watch: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error) {
			return receiver(carav1.NewSourceServiceClient(conn).WatchSources(ctx, &carav1.WatchObjectsRequest{LabelSelector: f.Selector}))
		},
		Remove: func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
			return removing(carav1.NewSourceServiceClient(conn).DeleteSource(ctx, &carav1.DeleteRequest{Name: name}))
		},
	}
}

func sourceRow(m proto.Message, now time.Time) []term.Cell {
	s := m.(*carav1.Source)
	st := s.GetStatus()
	ready, message := SourceState(s)
	from, ref := s.GetSpec().GetDir().GetPath(), ""
	if g := s.GetSpec().GetGit(); g != nil {
		from, ref = g.Url, RefText(g.Ref)
	}
	return []term.Cell{
		term.Text(s.GetMetadata().GetName()),
		ready,
		term.Count(st.GetProjects()),
		term.Text(api.ShortRevision(st.GetAppliedRevision())),
		term.Text(term.Short(term.Line(message), 80)),
		term.Since(now, s.GetMetadata().GetCreationTimestamp()),
		term.Text(from), term.Text(ref), term.Ago(now, st.GetPoll().GetLastTime()), term.Until(now, st.GetPoll().GetNextTime()),
		Delivered(now, st.GetPoll().GetLastDelivery()),
	}
}

// Delivered is the last webhook that came, and what was made of it.
func Delivered(now time.Time, d *carav1.Delivery) term.Cell {
	if d == nil {
		return term.Text("")
	}
	c := term.Ago(now, d.GetTime())
	c.Text += ", " + strings.TrimPrefix(term.Line(d.GetEvent()+": "+d.GetResult()), ": ")
	if strings.HasPrefix(d.GetResult(), api.DeliveryRefused) {
		c.Colour = term.Red
	}
	return c
}

// SourceState sums up a source's conditions: what is wrong comes first.
func SourceState(s *carav1.Source) (ready term.Cell, message string) {
	if s.GetMetadata().GetDeletionTimestamp() != nil {
		return term.Cell{Text: "Deleting", Colour: term.Faint}, "letting go of its projects"
	}
	if s.GetSpec().GetSuspend() {
		return term.Cell{Text: "Suspended", Colour: term.Yellow}, "nothing is fetched, applied or pruned"
	}
	conditions := s.GetStatus().GetConditions()
	for _, typ := range []string{
		api.CondFetchFailed, api.CondInvalidManifests, api.CondPruneBlocked, api.CondConflict, api.CondStalled,
	} {
		if c := api.FindCondition(conditions, typ); c.GetStatus() == api.StatusTrue {
			return term.Cell{Text: api.StatusFalse, Colour: term.Red}, typ + ": " + c.Message
		}
	}
	c := api.FindCondition(conditions, api.CondReady)
	switch c.GetStatus() {
	case api.StatusTrue:
		if degraded := api.FindCondition(conditions, api.CondWatchDegraded); degraded.GetStatus() == api.StatusTrue {
			return term.Cell{Text: api.StatusTrue, Colour: term.Yellow}, api.CondWatchDegraded + ": " + degraded.Message
		}
		return term.Cell{Text: api.StatusTrue, Colour: term.Green}, c.Message
	case "":
		return term.Cell{Text: api.StatusUnknown, Colour: term.Yellow}, "not read yet"
	default:
		return term.Cell{Text: term.Line(c.Status), Colour: term.Red}, strings.TrimPrefix(c.Reason+": "+c.Message, ": ")
	}
}

// RefText is what a git source follows: `branch main`.
func RefText(r *carav1.GitRef) string {
	switch {
	case r.GetBranch() != "":
		return "branch " + r.Branch
	case r.GetTag() != "":
		return "tag " + r.Tag
	case r.GetSemver() != "":
		return "semver " + r.Semver
	case r.GetCommit() != "":
		return "commit " + api.ShortRevision(r.Commit)
	}
	return "HEAD"
}
