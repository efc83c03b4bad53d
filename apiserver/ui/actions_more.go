package ui

import (
	"cmp"
	"context"
	"fmt"
	"net/url"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// dataVerbs are about volumes and backups.
func dataVerbs() []action {
	return []action{
		{
			name: "backup", label: "Back up", kind: api.KindProject, method: carav1.ProjectService_BackupProject_FullMethodName,
			command: "backup project", done: "The backup was requested.",
			offered: of(func(p *carav1.Project) bool {
				return p.GetSpec().GetBackup() != nil && p.GetStatus().GetNodeRef() != ""
			}),
			ask: effects("All Managed volumes are backed up now. The containers pause for the second pass, unless spec.backup.pause is false."),
			run: func(ctx context.Context, c clients, m proto.Message, _ url.Values) error {
				return second(c.projects.BackupProject(ctx, &carav1.BackupProjectRequest{Name: api.Meta(m).GetName()}))
			},
		},
		{
			name: "restore", label: "Restore", kind: api.KindProject, method: carav1.ProjectService_RestoreProject_FullMethodName,
			command: "restore", done: "The restore was requested.", danger: true,
			offered: of(func(p *carav1.Project) bool { return len(p.GetStatus().GetBackup().GetSnapshots()) > 0 }),
			ask:     askRestore,
			run: func(ctx context.Context, c clients, m proto.Message, f url.Values) error {
				return second(c.projects.RestoreProject(ctx, &carav1.RestoreProjectRequest{Name: api.Meta(m).GetName(), Volumes: chosen(f, "volume")}))
			},
		},
		{
			name: "delete-volume", label: "Delete volume", kind: api.KindVolume, method: carav1.VolumeService_DeleteVolume_FullMethodName,
			command: "delete volume", done: "The volume is being deleted.", danger: true,
			ask: askDeleteVolume,
			run: func(ctx context.Context, c clients, m proto.Message, _ url.Values) error {
				meta := api.Meta(m)
				return second(c.volumes.DeleteVolume(ctx, &carav1.DeleteRequest{Name: meta.GetName(), Uid: meta.GetUid()}))
			},
		},
	}
}

func askRestore(_ context.Context, _ clients, q *question) error {
	p := q.object.(*carav1.Project)
	options := []option{{"", "all volumes"}}
	for _, s := range p.GetStatus().GetBackup().GetSnapshots() {
		options = append(options, option{s.GetVolume(), fmt.Sprintf("%s (%s)", s.GetVolume(), bytesText(s.GetBytes()))})
	}
	q.Effects = []string{
		"The data of the newest backup, of " + minuteOf(p.GetStatus().GetBackup().GetLastSuccess()) + ", replaces the data of today.",
		"The project runs on its old data until the restored data is complete and verified. Then it restarts on it.",
		"The old data stays as a Retained volume until the restored one runs. caractrl restore can choose an older snapshot.",
	}
	q.Fields = []field{{Name: "volume", Label: "Volumes", Flag: "--volume", Options: options}}
	return nil
}

func askDeleteVolume(_ context.Context, _ clients, q *question) error {
	v := q.object.(*carav1.Volume)
	st := v.GetStatus()
	q.Effects = []string{"The data of volume " + q.Name + " on node " + st.GetNode() + " is deleted. There is no way back without a backup."}
	if st.GetLastBackup() == nil {
		q.Effects = append(q.Effects, "It was never backed up.")
	} else {
		q.Effects = append(q.Effects, "It was last backed up at "+minuteOf(st.GetLastBackup())+".")
	}
	q.Command += " --yes"
	return nil
}

func sourceVerbs() []action {
	return []action{
		{
			name: "sync", label: "Sync now", kind: api.KindSource, method: carav1.SourceService_ReconcileSource_FullMethodName,
			command: "reconcile", done: "A pass was requested.",
			offered: of(func(s *carav1.Source) bool { return !s.GetSpec().GetSuspend() }),
			ask:     askSync,
			run: func(ctx context.Context, c clients, m proto.Message, _ url.Values) error {
				return second(c.sources.ReconcileSource(ctx, &carav1.GetRequest{Name: api.Meta(m).GetName()}))
			},
		},
		{
			name: "suspend", label: "Suspend", kind: api.KindSource, method: carav1.SourceService_SuspendSource_FullMethodName,
			command: "suspend", done: "The source is suspended.", undo: "resume",
			offered: of(func(s *carav1.Source) bool { return !s.GetSpec().GetSuspend() }),
			ask:     effects("Nothing is fetched, applied or pruned until the source is resumed. What runs keeps running. Projects still expire."),
			run: func(ctx context.Context, c clients, m proto.Message, _ url.Values) error {
				return second(c.sources.SuspendSource(ctx, &carav1.GetRequest{Name: api.Meta(m).GetName()}))
			},
		},
		{
			name: "resume", label: "Resume", kind: api.KindSource, method: carav1.SourceService_ResumeSource_FullMethodName,
			command: "resume", done: "The source is resumed.", undo: "suspend",
			offered: of(func(s *carav1.Source) bool { return s.GetSpec().GetSuspend() }),
			ask:     askSync,
			run: func(ctx context.Context, c clients, m proto.Message, _ url.Values) error {
				return second(c.sources.ResumeSource(ctx, &carav1.GetRequest{Name: api.Meta(m).GetName()}))
			},
		},
		{
			name: "confirm", label: "Confirm the deletions", kind: api.KindSource, method: carav1.SourceService_ConfirmSource_FullMethodName,
			command: "confirm", done: "The deletions of this revision are confirmed.", danger: true,
			offered: of(func(s *carav1.Source) bool {
				return api.IsTrue(s.GetStatus().GetConditions(), api.CondPruneBlocked) && len(revision(s)) >= 7
			}),
			ask: func(ctx context.Context, c clients, q *question) error {
				rev := revision(q.object.(*carav1.Source))
				q.Command += "@" + rev
				q.Fields = []field{{Name: "revision", Label: "Revision", Value: rev, Options: []option{{rev, api.ShortRevision(rev)}}}}
				return askSync(ctx, c, q)
			},
			run: func(ctx context.Context, c clients, m proto.Message, f url.Values) error {
				return second(c.sources.ConfirmSource(ctx, &carav1.ConfirmSourceRequest{Name: api.Meta(m).GetName(), Revision: f.Get("revision")}))
			},
		},
	}
}

func revision(s *carav1.Source) string { return s.GetStatus().GetSnapshot().GetRevision() }

// mostEffects limits the lines of a question that have an object each.
const mostEffects = 50

// askSync shows the server's plan.
func askSync(ctx context.Context, c clients, q *question) error {
	q.Effects = []string{"The repository is read now, and each project is made as its manifest says."}
	plan, err := c.sources.PlanSource(ctx, &carav1.PlanSourceRequest{Name: q.Name})
	if err != nil {
		q.Effects = append(q.Effects, "There is no plan yet: "+api.ProblemOf(api.Wire(err)).GetDetail())
		return nil //nolint:nilerr // a source that was never read can be read now
	}
	if len(plan.GetSteps()) == 0 {
		q.Effects = append(q.Effects, fmt.Sprintf("At revision %s everything is up to date (projects: %d). Only a newer revision changes something.", api.ShortRevision(plan.GetRevision()), plan.GetSettled()))
	}
	for i, s := range plan.GetSteps() {
		if i == mostEffects {
			q.Effects = append(q.Effects, fmt.Sprintf("and %d more", len(plan.GetSteps())-i))
			break
		}
		line := s.GetAction() + " " + s.GetProject() + " (" + s.GetReason() + ")"
		if s.GetMessage() != "" {
			line += ": " + s.GetMessage()
		}
		q.Effects = append(q.Effects, line)
		for _, d := range s.GetDiff() {
			q.Diff = append(q.Diff, &carav1.FieldDiff{Path: s.GetProject() + ": " + d.GetPath(), Old: d.GetOld(), New: d.GetNew()})
		}
	}
	for _, why := range plan.GetPruneBlocked() {
		q.Effects = append(q.Effects, "Nothing is deleted: "+why)
	}
	return nil
}

// changeNode returns the action that changes the spec of a node as it was read. The server refuses it if the node has
// changed since.
func changeNode(change func(*carav1.NodeSpec, url.Values)) func(context.Context, clients, proto.Message, url.Values) error {
	return func(ctx context.Context, c clients, m proto.Message, f url.Values) error {
		n := proto.CloneOf(m.(*carav1.Node))
		n.Spec = cmp.Or(n.Spec, &carav1.NodeSpec{})
		change(n.Spec, f)
		return second(c.nodes.PutNode(ctx, &carav1.PutNodeRequest{Node: n}))
	}
}

func nodeVerbs() []action {
	return []action{
		{
			name: "cordon", label: "Cordon", kind: api.KindNode, method: carav1.NodeService_PutNode_FullMethodName,
			command: "cordon", done: "The node gets no new projects.", undo: "uncordon",
			offered: of(func(n *carav1.Node) bool { return !n.GetSpec().GetUnschedulable() }),
			ask:     effects("The node gets no new projects. What runs on it keeps running."),
			run:     changeNode(func(s *carav1.NodeSpec, _ url.Values) { s.Unschedulable = true }),
		},
		{
			name: "drain", label: "Drain", kind: api.KindNode, method: carav1.NodeService_PutNode_FullMethodName,
			command: "drain", done: "The node is being drained.", undo: "uncordon", danger: true,
			offered: of(func(n *carav1.Node) bool { return !n.GetSpec().GetDraining() }),
			ask:     askDrain,
			run: changeNode(func(s *carav1.NodeSpec, f url.Values) {
				s.Unschedulable, s.Draining, s.DrainMaxParallel, s.DrainMoveData = true, true, 1, f.Get("data") == "yes"
			}),
		},
		{
			name: "uncordon", label: "Uncordon", kind: api.KindNode, method: carav1.NodeService_PutNode_FullMethodName,
			command: "uncordon", done: "The node gets projects again.", undo: "cordon",
			offered: of(func(n *carav1.Node) bool { return n.GetSpec().GetUnschedulable() || n.GetSpec().GetDraining() }),
			ask:     effects("The node gets projects again, and a drain ends. What has moved stays where it is."),
			run: changeNode(func(s *carav1.NodeSpec, _ url.Values) {
				s.Unschedulable, s.Draining, s.DrainMaxParallel, s.DrainMoveData = false, false, 0, false
			}),
		},
	}
}

// askDrain shows which projects move.
func askDrain(ctx context.Context, c clients, q *question) error {
	l, err := c.projects.ListProjects(ctx, &carav1.ListProjectsRequest{NodeRef: q.Name})
	if err != nil {
		return err
	}
	q.Effects = []string{fmt.Sprintf("The node gets no new projects, and its projects (%d) move to other nodes, one after the other. One that fits nowhere else stays.", len(l.GetItems()))}
	for i, p := range l.GetItems() {
		if i == mostEffects {
			q.Effects = append(q.Effects, fmt.Sprintf("and %d more", len(l.GetItems())-i))
			break
		}
		line := p.GetMetadata().GetName()
		if len(api.ManagedVolumes(p.GetSpec())) > 0 {
			line += " has Managed volumes: it moves only with its data"
		}
		q.Effects = append(q.Effects, line)
	}
	q.Fields = []field{{
		Name: "data", Label: "Projects with data", Flag: "--move-data", Value: "no", Options: []option{{"no", "stay"}, {"yes", "move, with their data"}},
	}}
	return nil
}
