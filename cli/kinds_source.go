package cli

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func sourceKind() kind {
	return kind{
		name: api.KindSource, plural: "sources", aliases: []string{"src"},
		columns: []string{"NAME", "READY", "PROJECTS", "REVISION", "STATUS", "AGE"},
		wide:    []string{"FROM", "REF", "POLLED", "NEXT", "LAST DELIVERY"},
		row:     sourceRow,
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewSourceServiceClient(conn).ListSources(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
		get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			return message(carav1.NewSourceServiceClient(conn).GetSource(ctx, byName(name)))
		},
		watch: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) (func() (watchEvent, error), error) {
			return receiver(carav1.NewSourceServiceClient(conn).WatchSources(ctx, &carav1.WatchObjectsRequest{LabelSelector: f.selector}))
		},
		remove: func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
			return removing(carav1.NewSourceServiceClient(conn).DeleteSource(ctx, &carav1.DeleteRequest{Name: name}))
		},
	}
}

func sourceRow(m proto.Message, now time.Time) []cell {
	s := m.(*carav1.Source)
	st := s.GetStatus()
	ready, message := sourceState(s)
	from, ref := s.GetSpec().GetDir().GetPath(), ""
	if g := s.GetSpec().GetGit(); g != nil {
		from, ref = g.Url, refText(g.Ref)
	}
	return []cell{
		text(s.GetMetadata().GetName()),
		ready,
		count(st.GetProjects()),
		text(api.ShortRevision(st.GetAppliedRevision())),
		text(short(line(message), 80)),
		since(now, s.GetMetadata().GetCreationTimestamp()),
		text(from), text(ref), ago(now, st.GetPoll().GetLastTime()), until(now, st.GetPoll().GetNextTime()),
		delivered(now, st.GetPoll().GetLastDelivery()),
	}
}

// delivered is the last webhook that came, and what was made of it.
func delivered(now time.Time, d *carav1.Delivery) cell {
	if d == nil {
		return text("")
	}
	c := ago(now, d.GetTime())
	c.text += ", " + strings.TrimPrefix(line(d.GetEvent()+": "+d.GetResult()), ": ")
	if strings.HasPrefix(d.GetResult(), api.DeliveryRefused) {
		c.colour = red
	}
	return c
}

// sourceState sums up a source's conditions: what is wrong comes first.
func sourceState(s *carav1.Source) (ready cell, message string) {
	if s.GetMetadata().GetDeletionTimestamp() != nil {
		return cell{text: "Deleting", colour: faint}, "letting go of its projects"
	}
	if s.GetSpec().GetSuspend() {
		return cell{text: "Suspended", colour: yellow}, "nothing is fetched, applied or pruned"
	}
	conditions := s.GetStatus().GetConditions()
	for _, typ := range []string{
		api.CondFetchFailed, api.CondInvalidManifests, api.CondPruneBlocked, api.CondConflict, api.CondStalled,
	} {
		if c := api.FindCondition(conditions, typ); c.GetStatus() == api.StatusTrue {
			return cell{text: api.StatusFalse, colour: red}, typ + ": " + c.Message
		}
	}
	c := api.FindCondition(conditions, api.CondReady)
	switch c.GetStatus() {
	case api.StatusTrue:
		if degraded := api.FindCondition(conditions, api.CondWatchDegraded); degraded.GetStatus() == api.StatusTrue {
			return cell{text: api.StatusTrue, colour: yellow}, api.CondWatchDegraded + ": " + degraded.Message
		}
		return cell{text: api.StatusTrue, colour: green}, c.Message
	case "":
		return cell{text: api.StatusUnknown, colour: yellow}, "not read yet"
	default:
		return cell{text: line(c.Status), colour: red}, strings.TrimPrefix(c.Reason+": "+c.Message, ": ")
	}
}

func refText(r *carav1.GitRef) string {
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
