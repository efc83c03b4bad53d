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

// kind is how one kind of object is fetched and shown.
type kind struct {
	name    string // as api.Kind spells it
	plural  string
	aliases []string
	short   string
	columns []string // of the plain table
	wide    []string // added with -o wide
	row     func(m proto.Message, now time.Time) []cell
	list    func(ctx context.Context, a *app, o getOptions) ([]proto.Message, error)
	get     func(ctx context.Context, a *app, name string) (proto.Message, error)
	watch   func(ctx context.Context, a *app, o getOptions) (func() (watchEvent, error), error)
}

type watchEvent struct {
	kind   string // Added, Modified, Deleted, Bookmark
	object proto.Message
}

func (k kind) head(wide bool) []string {
	if wide {
		return append(append([]string{}, k.columns...), k.wide...)
	}
	return k.columns
}

// gone shows a row of an object that is no more: its second column says so.
func (k kind) gone(row []cell) []cell {
	if len(row) > 1 {
		row[1] = cell{"(gone)", faint}
	}
	return row
}

func kinds() []kind {
	return []kind{projectKind(), nodeKind(), sourceKind(), secretKind(), eventKind(), overrideKind(), tombstoneKind()}
}

// messages turns a list of one kind into a list of messages.
func messages[T proto.Message](items []T) []proto.Message {
	out := make([]proto.Message, len(items))
	for i, item := range items {
		out[i] = item
	}
	return out
}

// event is what the events of the per-kind watches have in common.
type event[T proto.Message] interface {
	GetType() string
	GetObject() T
}

func receiver[E event[T], T proto.Message](stream interface{ Recv() (E, error) }) func() (watchEvent, error) {
	return func() (watchEvent, error) {
		e, err := stream.Recv()
		if err != nil {
			return watchEvent{}, err
		}
		return watchEvent{e.GetType(), e.GetObject()}, nil
	}
}

func nodeKind() kind {
	return kind{
		name: api.KindNode, plural: "nodes", aliases: []string{"node", "no"}, short: "Machines that run projects",
		columns: []string{"NAME", "STATE", "PROJECTS", "CPU", "MEMORY", "HEARTBEAT", "AGE"},
		wide:    []string{"PLATFORM", "ENGINE", "AGENT", "INGRESS", "REASON"},
		row:     nodeRow,
		list: func(ctx context.Context, a *app, o getOptions) ([]proto.Message, error) {
			c, err := a.nodes()
			if err != nil {
				return nil, err
			}
			l, err := c.ListNodes(ctx, &carav1.ListRequest{LabelSelector: o.selector})
			return messages(l.GetItems()), err
		},
		get: func(ctx context.Context, a *app, name string) (proto.Message, error) {
			c, err := a.nodes()
			if err != nil {
				return nil, err
			}
			return c.GetNode(ctx, &carav1.GetRequest{Name: name})
		},
		watch: func(ctx context.Context, a *app, o getOptions) (func() (watchEvent, error), error) {
			c, err := a.nodes()
			if err != nil {
				return nil, err
			}
			s, err := c.WatchNodes(ctx, &carav1.WatchObjectsRequest{LabelSelector: o.selector})
			return receiver[*carav1.NodeEvent](grpc.ServerStreamingClient[carav1.NodeEvent](s)), err
		},
	}
}

func nodeRow(m proto.Message, now time.Time) []cell {
	n := m.(*carav1.Node)
	info := n.GetStatus().GetInfo()
	state := n.GetStatus().GetState()
	colour := green
	if state != api.NodeReady {
		colour = red
	}
	if n.GetSpec().GetUnschedulable() {
		state, colour = state+",Cordoned", yellow
	}
	reason := ""
	for _, c := range n.GetStatus().GetConditions() {
		if (c.Type == api.CondReady || c.Type == api.CondEngineReady) && c.Status != api.StatusTrue {
			reason = c.Reason + ": " + c.Message
		}
	}
	return []cell{
		text(n.GetMetadata().GetName()),
		{dash(line(state)), colour},
		count(n.GetStatus().GetProjects()),
		text(info.GetCapacity().GetCpu()), text(info.GetCapacity().GetMemory()),
		text(ago(now, n.GetStatus().GetLastHeartbeat())), text(since(now, n.GetMetadata().GetCreationTimestamp())),
		text(info.GetPlatform()), text(info.GetEngineVersion()), text(info.GetAgentVersion()),
		text(info.GetIngressAddress()), text(reason),
	}
}

func sourceKind() kind {
	return kind{
		name: api.KindSource, plural: "sources", aliases: []string{"source", "src"}, short: "Repositories and directories that declare projects",
		columns: []string{"NAME", "READY", "PROJECTS", "REVISION", "STATUS", "AGE"},
		wide:    []string{"FROM", "REF", "LAST POLL", "NEXT POLL"},
		row:     sourceRow,
		list: func(ctx context.Context, a *app, o getOptions) ([]proto.Message, error) {
			c, err := a.sources()
			if err != nil {
				return nil, err
			}
			l, err := c.ListSources(ctx, &carav1.ListRequest{LabelSelector: o.selector})
			return messages(l.GetItems()), err
		},
		get: func(ctx context.Context, a *app, name string) (proto.Message, error) {
			c, err := a.sources()
			if err != nil {
				return nil, err
			}
			return c.GetSource(ctx, &carav1.GetRequest{Name: name})
		},
		watch: func(ctx context.Context, a *app, o getOptions) (func() (watchEvent, error), error) {
			c, err := a.sources()
			if err != nil {
				return nil, err
			}
			s, err := c.WatchSources(ctx, &carav1.WatchObjectsRequest{LabelSelector: o.selector})
			return receiver[*carav1.SourceEvent](grpc.ServerStreamingClient[carav1.SourceEvent](s)), err
		},
	}
}

func sourceRow(m proto.Message, now time.Time) []cell {
	s := m.(*carav1.Source)
	st := s.GetStatus()
	ready, colour, message := sourceState(s)
	from, ref := s.GetSpec().GetDir().GetPath(), ""
	if g := s.GetSpec().GetGit(); g != nil {
		from, ref = g.Url, refText(g.Ref)
	}
	return []cell{
		text(s.GetMetadata().GetName()),
		{ready, colour},
		count(st.GetProjects()),
		text(revision(st.GetAppliedRevision())),
		text(short(message, 80)),
		text(since(now, s.GetMetadata().GetCreationTimestamp())),
		text(from), text(ref), text(ago(now, st.GetPoll().GetLastTime())), text(until(now, st.GetPoll().GetNextTime())),
	}
}

// sourceState sums up a source's conditions: what is wrong comes first.
func sourceState(s *carav1.Source) (ready, colour, message string) {
	conditions := s.GetStatus().GetConditions()
	if s.GetSpec().GetSuspend() {
		return "Suspended", yellow, "nothing is fetched, applied or pruned"
	}
	for _, typ := range []string{
		api.CondFetchFailed, api.CondInvalidManifests, api.CondPruneBlocked, api.CondConflict, api.CondStalled, api.CondWatchDegraded,
	} {
		if c := api.FindCondition(conditions, typ); c.GetStatus() == api.StatusTrue {
			return api.StatusFalse, red, typ + ": " + c.Message
		}
	}
	c := api.FindCondition(conditions, api.CondReady)
	switch c.GetStatus() {
	case api.StatusTrue:
		return api.StatusTrue, green, c.Message
	case "":
		return "Unknown", yellow, "not read yet"
	default:
		return c.Status, red, strings.TrimPrefix(c.Reason+": "+c.Message, ": ")
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
		return "commit " + revision(r.Commit)
	}
	return "HEAD"
}
