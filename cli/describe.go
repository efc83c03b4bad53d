package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

func (a *app) describeCommand() *cobra.Command {
	described := func(k kind.Kind) bool {
		return k.Name == api.KindProject || k.Name == api.KindNode || k.Name == api.KindSource || k.Name == api.KindToken
	}
	return &cobra.Command{
		Use: "describe KIND NAME... | describe KIND/NAME...", Short: "Show objects in full, with what happened to them",
		Long:              "Show projects, nodes, sources or tokens in full: what they are, what bounds them, their conditions, and what happened to them.",
		Example:           "  caractrl describe project web\n  caractrl describe source/platform",
		ValidArgsFunction: a.completeRefs(described),
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := kind.ParseRefs(args)
			if err != nil {
				return err
			}
			for i, r := range refs {
				switch {
				case !described(r.Kind):
					return fmt.Errorf("%s cannot be described: get %s shows all there is", r.Kind.Plural, r.Kind.Plural)
				case r.Name == "":
					return fmt.Errorf("say which: describe %s NAME", r.Kind.Lower())
				}
				if i > 0 {
					fmt.Fprintln(a.Out)
				}
				if err := a.describe(cmd.Context(), r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) describe(ctx context.Context, r kind.Ref) error {
	conn, err := a.dial()
	if err != nil {
		return err
	}
	obj, err := r.Kind.Get(ctx, conn, r.Name)
	if err != nil {
		return err
	}
	switch o := obj.(type) {
	case *carav1.Project:
		a.describeProject(o)
		err = a.describeOverride(ctx, o)
	case *carav1.Node:
		err = a.describeNode(ctx, conn, o)
	case *carav1.Source:
		err = a.describeSource(ctx, conn, o)
	case *carav1.Token:
		a.describeToken(o)
		return nil // no events are written about tokens
	}
	if err != nil {
		return err
	}
	return a.describeEvents(ctx, conn, r)
}

// field prints one aligned line; nothing where there is no value.
func (a *app) field(name, value string) {
	if value = term.Line(value); value != "" && value != "-" {
		fmt.Fprintf(a.Out, "%-12s %s\n", name+":", value)
	}
}

func (a *app) section(title string) { fmt.Fprintf(a.Out, "\n%s:\n", title) }

func (a *app) meta(m *carav1.ObjectMeta) {
	a.field("Name", m.GetName())
	a.field("Labels", kind.Pairs(m.GetLabels()))
	a.field("Annotations", kind.Pairs(m.GetAnnotations()))
	a.field("Owner", m.GetOwner())
	if m.GetOrigin().GetFile() != "" {
		a.field("Origin", whence(m))
	}
	a.field("Age", term.Since(a.now(), m.GetCreationTimestamp()).Text)
}

func (a *app) describeProject(p *carav1.Project) {
	st := p.GetStatus()
	a.meta(p.GetMetadata())
	a.field("Phase", kind.PhaseCell(p, a.now()).Text)
	a.field("Node", st.GetNodeRef())
	a.field("Generation", fmt.Sprintf("%d (observed %d), epoch %d", p.GetMetadata().GetGeneration(), st.GetObservedGeneration(), st.GetEpoch()))
	if at := kind.Expiry(p); at != nil {
		a.field("Expires", term.Until(a.now(), at).Text+" ("+at.AsTime().UTC().Format(time.RFC3339)+")")
	}
	a.field("Hosts", strings.Join(st.GetHosts(), ", "))
	a.section("Services")
	rows := [][]term.Cell{term.Header("  NAME", "STATE", "HEALTH", "RESTARTS", "IMAGE", "CONTAINER", "MESSAGE")}
	byName := map[string]*carav1.ServiceStatus{}
	for _, s := range st.GetServices() {
		byName[s.Name] = s
	}
	for _, want := range p.GetSpec().GetServices() {
		s := byName[want.Name]
		rows = append(rows, []term.Cell{
			{Text: "  " + term.Line(want.Name)},
			term.Text(s.GetState()), term.Text(s.GetHealth()), term.Count(s.GetRestarts()),
			term.Text(want.Image), term.Text(term.Short(s.GetContainerId(), 13)), term.Text(term.Short(term.Line(s.GetMessage()), 100)),
		})
	}
	term.NewTable(a.Out).Print(rows...)
	a.conditions(st.GetConditions())
}

func (a *app) conditions(conditions []*carav1.Condition) {
	if len(conditions) == 0 {
		return
	}
	a.section("Conditions")
	rows := [][]term.Cell{term.Header("  TYPE", "STATUS", "REASON", "SINCE", "MESSAGE")}
	var long []*carav1.Condition
	for _, c := range conditions {
		message := c.Message
		if strings.Contains(strings.TrimSpace(message), "\n") {
			if len(long) == 0 || long[len(long)-1].Message != message {
				long = append(long, c)
			}
			message, _, _ = strings.Cut(message, "\n")
		}
		rows = append(rows, []term.Cell{
			{Text: "  " + term.Line(c.Type)}, term.Text(c.Status), term.Text(c.Reason), term.Ago(a.now(), c.LastTransitionTime), term.Text(message),
		})
	}
	term.NewTable(a.Out).Print(rows...)
	for _, c := range long { // such as the last lines of a log
		fmt.Fprintf(a.Out, "\n  %s %s:\n", term.Clean(c.Type), term.Clean(c.Reason))
		for l := range strings.Lines(term.Clean(c.Message)) {
			fmt.Fprintf(a.Out, "    %s\n", strings.TrimRight(l, "\n"))
		}
	}
}

func (a *app) describeNode(ctx context.Context, conn grpc.ClientConnInterface, n *carav1.Node) error {
	st := n.GetStatus()
	info := st.GetInfo()
	a.meta(n.GetMetadata())
	a.field("State", kind.StateCell(n).Text)
	a.field("Heartbeat", term.Ago(a.now(), st.GetLastHeartbeat()).Text)
	a.field("Platform", info.GetPlatform())
	a.field("Engine", info.GetEngineVersion())
	a.field("Agent", info.GetAgentVersion())
	a.field("Ingress", info.GetIngressAddress())
	if more := info.GetAllowedCapabilities(); len(more) > 0 {
		a.field("Allows", "capabilities "+strings.Join(more, ", "))
	}
	c := info.GetCapacity()
	a.field("Capacity", fmt.Sprintf("cpu %s, memory %s, disk %s (%s free), %d project networks",
		term.Dash(c.GetCpu()), kind.Quantity(c.GetMemory()).Text, kind.Quantity(c.GetDisk()).Text, kind.Quantity(c.GetDiskFree()).Text, c.GetSubnets()))
	a.conditions(st.GetConditions())
	projects, err := kind.Project().List(ctx, conn, kind.Filter{Node: n.GetMetadata().GetName()})
	if err != nil {
		return err
	}
	a.section(fmt.Sprintf("Projects (%d)", len(projects)))
	for _, p := range projects {
		fmt.Fprintf(a.Out, "  %s %s\n", term.Line(api.Meta(p).GetName()), term.Line(p.(*carav1.Project).GetStatus().GetPhase()))
	}
	return nil
}

func (a *app) describeSource(ctx context.Context, conn grpc.ClientConnInterface, s *carav1.Source) error {
	st, spec := s.GetStatus(), s.GetSpec()
	a.meta(s.GetMetadata())
	if g := spec.GetGit(); g != nil {
		a.field("Git", g.Url+" "+kind.RefText(g.Ref))
	}
	a.field("Directory", spec.GetDir().GetPath())
	a.field("Path", spec.GetPath())
	a.sourceLimits(spec.GetAllow())
	snap := st.GetSnapshot()
	if snap != nil {
		a.field("Snapshot", fmt.Sprintf("%s (%s, %s) %s", term.Dash(api.ShortRevision(snap.Revision)),
			term.Plural(int(snap.Files), "file"), term.Plural(int(snap.Projects), "project"), snap.Subject))
	}
	a.field("Author", snap.GetAuthor())
	a.field("Observed", api.ShortRevision(st.GetPoll().GetObservedRevision()))
	a.field("Attempted", api.ShortRevision(st.GetAttemptedRevision()))
	a.field("Applied", api.ShortRevision(st.GetAppliedRevision()))
	a.field("Last poll", term.Ago(a.now(), st.GetPoll().GetLastTime()).Text)
	a.field("Next poll", term.Until(a.now(), st.GetPoll().GetNextTime()).Text)
	if w := spec.GetWebhook(); w != nil {
		a.field("Webhook", w.GetProvider()+", POST /api/v1/sources/"+s.GetMetadata().GetName()+"/webhook")
		a.field("Delivery", kind.Delivered(a.now(), st.GetPoll().GetLastDelivery()).Text)
	}
	a.conditions(st.GetConditions())
	a.fileProblems("Errors", snap.GetFileErrors(), snap.GetErrorCount())
	a.fileProblems("Warnings", snap.GetWarnings(), int32(len(snap.GetWarnings())))
	claims, err := carav1.NewSourceServiceClient(conn).ListClaims(ctx, &carav1.ListClaimsRequest{Source: s.GetMetadata().GetName()})
	if err != nil {
		return err
	}
	a.section(fmt.Sprintf("Projects (%d)", len(claims.Items)))
	rows := [][]term.Cell{term.Header("  PROJECT", "STATE", "FILE", "REVISION", "APPLIED", "MESSAGE")}
	for _, cl := range claims.Items {
		rows = append(rows, claimRow(a, cl))
	}
	if len(rows) > 1 {
		term.NewTable(a.Out).Print(rows...)
	}
	a.runs(st.GetRuns())
	return nil
}

func claimRow(a *app, c *carav1.Claim) []term.Cell {
	file := fmt.Sprintf("%s:%d", c.GetSpec().GetFile(), c.GetSpec().GetLine())
	if !c.GetSpec().GetPresent() {
		file = "(left) " + file
	}
	message := c.GetStatus().GetMessage()
	if message == "" {
		message = c.GetSpec().GetHeld()
	}
	return []term.Cell{
		{Text: "  " + term.Line(c.GetSpec().GetProject().GetMetadata().GetName())},
		term.Text(c.GetStatus().GetState()), term.Text(file),
		term.Text(api.ShortRevision(c.GetSpec().GetRevision())), term.Ago(a.now(), c.GetStatus().GetAppliedTime()), term.Text(message),
	}
}

func (a *app) fileProblems(title string, problems []*carav1.FileProblem, all int32) {
	if len(problems) == 0 {
		return
	}
	a.section(fmt.Sprintf("%s (%d)", title, all))
	for _, p := range problems {
		fmt.Fprintf(a.Out, "  %s\n", term.Line(manifest.Format(p)))
	}
}

func (a *app) runs(runs []*carav1.Run) {
	if len(runs) == 0 {
		return
	}
	a.section("Last passes")
	rows := [][]term.Cell{term.Header("  REVISION", "WHEN", "TOOK", "CREATED", "UPDATED", "PRUNED", "FAILED", "MESSAGE")}
	for _, r := range runs {
		took := r.GetEndTime().AsTime().Sub(r.GetStartTime().AsTime())
		rows = append(rows, []term.Cell{
			{Text: "  " + term.Line(api.ShortRevision(r.Revision))},
			term.Ago(a.now(), r.StartTime), term.Text(took.Round(1e6).String()),
			term.Count(r.Created), term.Count(r.Updated), term.Count(r.Pruned), term.Count(r.Failed), term.Text(r.Message),
		})
	}
	term.NewTable(a.Out).Print(rows...)
}

// describeEvents ends every description: what happened, newest last.
func (a *app) describeEvents(ctx context.Context, conn grpc.ClientConnInterface, r kind.Ref) error {
	l, err := carav1.NewEventServiceClient(conn).ListEvents(ctx, &carav1.ListEventsRequest{Kind: r.Kind.Name, Name: r.Name})
	if err != nil {
		return err
	}
	events := kind.ByLastTime(l.Items)
	a.section("Events")
	if len(events) == 0 {
		fmt.Fprintln(a.Out, "  none")
		return nil
	}
	rows := [][]term.Cell{term.Header("  LAST", "TYPE", "REASON", "COUNT", "ACTOR", "MESSAGE")}
	for _, e := range events[max(0, len(events)-20):] {
		rows = append(rows, []term.Cell{
			{Text: "  " + term.Ago(a.now(), e.LastTime).Text}, term.Text(e.Type), term.Text(e.Reason), term.Count(e.Count), term.Text(e.Actor), term.Text(e.Message),
		})
	}
	term.NewTable(a.Out).Print(rows...)
	return nil
}
