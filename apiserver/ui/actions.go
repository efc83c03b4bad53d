package ui

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// actions are what the page offers, in the order in which a view shows it.
func actions() []action {
	return slices.Concat(projectVerbs(), dataVerbs(), sourceVerbs(), nodeVerbs())
}

func projectVerbs() []action {
	return []action{
		{
			name: "retry", label: "Retry", kind: api.KindProject, method: carav1.ProjectService_RetryProject_FullMethodName,
			command: "retry", done: "The retry was requested.",
			offered: of(func(p *carav1.Project) bool {
				return p.GetStatus().GetPhase() == api.PhaseFailed || api.UpdateFailed(p)
			}),
			ask: effects("It starts again from the current spec. A Failed project is scheduled again; image tags are resolved again."),
			run: func(ctx context.Context, c clients, m proto.Message, _ url.Values) error {
				return second(c.projects.RetryProject(ctx, &carav1.RetryProjectRequest{Name: api.Meta(m).GetName()}))
			},
		},
		{
			name: "restart", label: "Restart", kind: api.KindProject, method: carav1.ProjectService_RestartProject_FullMethodName,
			command: "restart", done: "The restart was requested.", offered: of(placed),
			ask: askRestart,
			run: func(ctx context.Context, c clients, m proto.Message, f url.Values) error {
				return second(c.projects.RestartProject(ctx, &carav1.RestartProjectRequest{Name: api.Meta(m).GetName(), Services: chosen(f, "service")}))
			},
		},
		{
			name: "extend", label: "Extend", kind: api.KindProject, method: carav1.ProjectService_ExtendProject_FullMethodName,
			command: "extend", done: "The project lives longer now.",
			offered: of(func(p *carav1.Project) bool { return api.Expiry(p) != nil && !api.GoingAway(p) }),
			ask:     askExtend, run: runExtend,
		},
		{
			name: "rollback", label: "Roll back", kind: api.KindProject, method: carav1.ProjectService_RollbackProject_FullMethodName,
			command: "rollback", done: "The earlier spec was restored.", undo: "rollback",
			offered: of(func(p *carav1.Project) bool { return p.GetMetadata().GetGeneration() > 1 && !api.GoingAway(p) }),
			ask:     askRollback, run: runRollback,
		},
		{
			name: "override", label: "Override git", kind: api.KindProject, method: carav1.ProjectService_OverrideProject_FullMethodName,
			command: "override", done: "Git does not change this project until the override ends.", undo: "clear-override",
			offered: of(func(p *carav1.Project) bool { return owned(p) && !overridden(p) && !api.GoingAway(p) }),
			ask:     askOverride,
			run: func(ctx context.Context, c clients, m proto.Message, f url.Values) error {
				t, err := terms(f)
				if err != nil {
					return err
				}
				return second(c.projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: api.Meta(m).GetName(), Terms: t}))
			},
		},
		{
			name: "clear-override", label: "End the override", kind: api.KindProject, method: carav1.ProjectService_OverrideProject_FullMethodName,
			command: "override clear", done: "Git decides about this project again.", offered: of(overridden),
			ask: effects("Git decides again: the next pass makes the project as its manifest says, or deletes it if git does not have it any more."),
			run: func(ctx context.Context, c clients, m proto.Message, _ url.Values) error {
				return second(c.projects.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: api.Meta(m).GetName(), Clear: true}))
			},
		},
		{
			name: "delete", label: "Delete", kind: api.KindProject, method: carav1.ProjectService_DeleteProject_FullMethodName,
			command: "delete project", done: "The project is being deleted.", danger: true,
			offered: of(func(p *carav1.Project) bool { return !api.GoingAway(p) }),
			ask:     askDelete, run: runDelete,
		},
	}
}

// second returns the error of a call whose answer does not matter.
func second(_ any, err error) error { return err }

// chosen returns the choice of a field that also offers all.
func chosen(f url.Values, field string) []string {
	if f.Get(field) == "" {
		return nil
	}
	return []string{f.Get(field)}
}

// effects returns the question of an action that only says what it does.
func effects(lines ...string) func(context.Context, clients, *question) error {
	return func(_ context.Context, _ clients, q *question) error {
		q.Effects = append(q.Effects, lines...)
		return nil
	}
}

// of returns a condition about objects of one kind.
func of[T proto.Message](f func(T) bool) func(proto.Message) bool {
	return func(m proto.Message) bool { object, ok := m.(T); return ok && f(object) }
}

func placed(p *carav1.Project) bool {
	phase := p.GetStatus().GetPhase()
	return phase == api.PhaseRunning || phase == api.PhaseScheduled
}

func owned(p *carav1.Project) bool {
	_, ok := api.SourceOf(p.GetMetadata().GetOwner())
	return ok
}

func overridden(p *carav1.Project) bool {
	return api.IsTrue(p.GetStatus().GetConditions(), api.CondOverridden)
}

func askRestart(_ context.Context, _ clients, q *question) error {
	p := q.object.(*carav1.Project)
	options := []option{{"", "all services"}}
	for _, s := range p.GetSpec().GetServices() {
		options = append(options, option{s.GetName(), s.GetName()})
	}
	q.Effects = []string{"The containers are stopped and started again, one service after the other. The spec and the data stay."}
	q.Fields = []field{{Name: "service", Label: "Services", Flag: "/", Options: options}}
	return nil
}

func askExtend(_ context.Context, _ clients, q *question) error {
	p := q.object.(*carav1.Project)
	q.Effects = []string{"It expires at " + minuteOf(api.Expiry(p)) + " now. The time that you choose is added to that."}
	if owned(p) {
		q.Effects = append(q.Effects, "Git does not change: the later end is an override of the expiry alone, and the override ends at that time.")
	}
	q.Fields = []field{
		{Name: "by", Label: "Longer by", Flag: "-", Value: "24h", Options: []option{{"1h", "1 hour"}, {"8h", "8 hours"}, {"24h", "1 day"}, {"72h", "3 days"}, {"168h", "1 week"}}},
		{Name: "reason", Label: "Reason", Flag: "--reason"},
	}
	return nil
}

func runExtend(ctx context.Context, c clients, m proto.Message, f url.Values) error {
	by, err := time.ParseDuration(f.Get("by"))
	if err != nil || by <= 0 {
		return api.Invalid("the form", api.Field("by", "is %q; write a duration such as 24h", f.Get("by")))
	}
	return second(c.projects.ExtendProject(ctx, &carav1.ExtendProjectRequest{Name: api.Meta(m).GetName(), By: durationpb.New(by), Reason: f.Get("reason")}))
}

func askRollback(ctx context.Context, c clients, q *question) error {
	p := q.object.(*carav1.Project)
	h, err := c.projects.GetProjectHistory(ctx, &carav1.GetRequest{Name: q.Name})
	if err != nil {
		return err
	}
	chosen := q.query.Get("to")
	var options []option
	for _, r := range h.GetItems() {
		if r.GetGeneration() == p.GetMetadata().GetGeneration() {
			continue
		}
		to := strconv.Itoa(int(r.GetGeneration()))
		chosen = cmp.Or(chosen, to)
		options = append(options, option{to, fmt.Sprintf("generation %s, by %s, %s", to, r.GetActor(), minuteOf(r.GetTime()))})
		if to == chosen {
			q.Diff = api.Diff(p, r.GetProject())
		}
	}
	if len(options) == 0 {
		return api.BadState("project %q has no earlier spec to go back to", q.Name)
	}
	q.Effects = []string{"The spec becomes that of generation " + chosen + " again. Only services that differ are recreated. Data does not change."}
	q.Fields = []field{{Name: "to", Label: "Back to", Flag: "--to", Value: chosen, Options: options, Help: "Choose another one to see what would change."}}
	if owned(p) {
		q.Effects = append(q.Effects, "Git does not change the project until the override ends.")
		q.Fields = append(q.Fields, termFields()...)
	}
	return nil
}

func runRollback(ctx context.Context, c clients, m proto.Message, f url.Values) error {
	t, err := ownedTerms(m, f)
	if err != nil {
		return err
	}
	return second(c.projects.RollbackProject(ctx, &carav1.RollbackProjectRequest{Name: api.Meta(m).GetName(), To: f.Get("to"), Terms: t}))
}

func askOverride(_ context.Context, _ clients, q *question) error {
	p := q.object.(*carav1.Project)
	source, _ := api.SourceOf(p.GetMetadata().GetOwner())
	q.Effects = []string{
		"Until the override ends, source " + source + " does not change or delete this project. You can change it with caractrl apply.",
		"When it ends, git decides again.",
	}
	q.Fields = termFields()
	return nil
}

func askDelete(ctx context.Context, c clients, q *question) error {
	p := q.object.(*carav1.Project)
	q.Effects = []string{fmt.Sprintf("All containers of %s are stopped and removed, with its network and its Ephemeral volumes.", q.Name)}
	volumes, err := c.volumes.ListVolumes(ctx, &carav1.ListVolumesRequest{Project: q.Name})
	if err != nil {
		return err
	}
	for _, v := range volumes.GetItems() {
		fate := "stays, with its data, as Retained."
		if v.GetSpec().GetReclaim() == api.ReclaimDelete {
			fate = "is deleted with its data (reclaim: Delete)."
		}
		q.Effects = append(q.Effects, "Volume "+v.GetMetadata().GetName()+" "+fate)
	}
	if source, ok := api.SourceOf(p.GetMetadata().GetOwner()); ok {
		q.Effects = append(q.Effects, "Source "+source+" declares it. Git does not create it again until the override ends; then it does, unless it was removed from git.")
		q.Command += " --override"
		q.Fields = termFields()
	}
	return nil
}

func runDelete(ctx context.Context, c clients, m proto.Message, f url.Values) error {
	t, err := ownedTerms(m, f)
	if err != nil {
		return err
	}
	meta := api.Meta(m)
	return second(c.projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: meta.GetName(), Uid: meta.GetUid(), NoWait: true, Override: t}))
}
