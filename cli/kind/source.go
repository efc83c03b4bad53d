package kind

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// Source is the kind Source.
func Source() Kind {
	return Kind{
		Name: api.KindSource, Plural: "sources", aliases: []string{"src"},
		Columns: []string{"NAME", "READY", "PROJECTS", "REVISION", "STATUS", "AGE"},
		wide:    []string{"FROM", "REF", "POLLED", "NEXT", "LAST DELIVERY"},
		Row:     sourceRow, Describe: describeSource,
		List: lister(carav1.NewSourceServiceClient, carav1.SourceServiceClient.ListSources, byLabel),
		Get:  getter(carav1.NewSourceServiceClient, carav1.SourceServiceClient.GetSource),
		Watch: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error) {
			return receiver(carav1.NewSourceServiceClient(conn).WatchSources(ctx, &carav1.WatchObjectsRequest{LabelSelector: f.Selector}))
		},
		Remove: remover(carav1.NewSourceServiceClient, carav1.SourceServiceClient.DeleteSource),
	}
}

func describeSource(ctx context.Context, p Page, m proto.Message) error {
	s := m.(*carav1.Source)
	st, spec := s.GetStatus(), s.GetSpec()
	p.meta(s.GetMetadata())
	if g := spec.GetGit(); g != nil {
		p.Field("Git", g.Url+" "+api.RefText(g.Ref))
	}
	p.Field("Directory", spec.GetDir().GetPath())
	p.Field("Path", spec.GetPath())
	p.Field("Format", spec.GetFormat())
	p.Field("May declare", limit(spec.GetAllow().GetNames(), "projects of every name"))
	p.Field("May claim", limit(spec.GetAllow().GetHosts(), "every host that is not reserved"))
	if a := spec.GetAllow(); len(a.GetPorts()) > 0 || len(a.GetPublicPorts()) > 0 {
		p.Field("May open", "Internal ports: "+limit(a.GetPorts(), "all")+"; Public ports: "+limit(a.GetPublicPorts(), "none"))
	}
	p.Field("May use", limit(spec.GetAllow().GetSecrets(), "no Secret"))
	p.Field("Variables", variables(spec.GetVars()))
	snap := st.GetSnapshot()
	if snap != nil {
		p.Field("Snapshot", fmt.Sprintf("%s (%s, %s) %s", term.Dash(api.ShortRevision(snap.Revision)),
			term.Plural(int(snap.Files), "file"), term.Plural(int(snap.Projects), "project"), snap.Subject))
	}
	p.Field("Author", snap.GetAuthor())
	p.polls(st)
	if w := spec.GetWebhook(); w != nil {
		p.Field("Webhook", w.GetProvider()+", POST /api/v1/sources/"+s.GetMetadata().GetName()+"/webhook")
		p.Field("Delivery", Delivered(p.Now, st.GetPoll().GetLastDelivery()).Text)
	}
	p.conditions(st.GetConditions())
	p.fileProblems("Errors", snap.GetFileErrors(), snap.GetErrorCount())
	p.fileProblems("Warnings", snap.GetWarnings(), int32(len(snap.GetWarnings())))
	if err := p.claims(ctx, s.GetMetadata().GetName()); err != nil {
		return err
	}
	p.runs(st.GetRuns())
	return nil
}

// variables returns the names of a source's variables, and which Secret each has its value from.
func variables(vars []*carav1.SourceVar) string {
	names := make([]string, len(vars))
	for i, v := range vars {
		names[i] = v.GetName()
		if ref := v.GetSecretKeyRef(); ref != nil {
			names[i] += fmt.Sprintf(" (Secret %s, key %s)", ref.GetName(), ref.GetKey())
		}
	}
	return strings.Join(names, ", ")
}

// polls shows which revisions were seen and applied, and when.
func (p Page) polls(st *carav1.SourceStatus) {
	p.Field("Observed", api.ShortRevision(st.GetPoll().GetObservedRevision()))
	p.Field("Attempted", api.ShortRevision(st.GetAttemptedRevision()))
	p.Field("Applied", api.ShortRevision(st.GetAppliedRevision()))
	p.Field("Last poll", term.Ago(p.Now, st.GetPoll().GetLastTime()).Text)
	p.Field("Next poll", term.Until(p.Now, st.GetPoll().GetNextTime()).Text)
}

// claims shows the projects that a source declares.
func (p Page) claims(ctx context.Context, source string) error {
	claims, err := carav1.NewSourceServiceClient(p.Conn).ListClaims(ctx, &carav1.ListClaimsRequest{Source: source})
	if err != nil {
		return err
	}
	title := fmt.Sprintf("Projects (%d)", len(claims.Items))
	if len(claims.Items) == 0 {
		p.section(title)
	}
	table(p, title, []string{"PROJECT", "STATE", "FILE", "REVISION", "APPLIED", "MESSAGE"}, claims.Items, func(c *carav1.Claim) []term.Cell {
		file := fmt.Sprintf("%s:%d", c.GetSpec().GetFile(), c.GetSpec().GetLine())
		if !c.GetSpec().GetPresent() {
			file = "(left) " + file
		}
		message := cmp.Or(c.GetStatus().GetMessage(), c.GetSpec().GetHeld())
		return []term.Cell{
			term.Text(c.GetSpec().GetProject().GetMetadata().GetName()),
			term.Text(c.GetStatus().GetState()), term.Text(file),
			term.Text(api.ShortRevision(c.GetSpec().GetRevision())), term.Ago(p.Now, c.GetStatus().GetAppliedTime()), term.Text(message),
		}
	})
	return nil
}

func (p Page) fileProblems(title string, problems []*carav1.FileProblem, all int32) {
	if len(problems) == 0 {
		return
	}
	p.section(fmt.Sprintf("%s (%d)", title, all))
	for _, problem := range problems {
		fmt.Fprintf(p.Out, "  %s\n", term.Line(manifest.Format(problem)))
	}
}

func (p Page) runs(runs []*carav1.Run) {
	head := []string{"REVISION", "WHEN", "TOOK", "CREATED", "UPDATED", "PRUNED", "FAILED", "MESSAGE"}
	table(p, "Last passes", head, runs, func(r *carav1.Run) []term.Cell {
		took := r.GetEndTime().AsTime().Sub(r.GetStartTime().AsTime())
		return []term.Cell{
			term.Text(api.ShortRevision(r.Revision)), term.Ago(p.Now, r.StartTime), term.Text(took.Round(time.Millisecond).String()),
			term.Count(r.Created), term.Count(r.Updated), term.Count(r.Pruned), term.Count(r.Failed), term.Text(r.Message),
		}
	})
}

func sourceRow(m proto.Message, now time.Time) []term.Cell {
	s := m.(*carav1.Source)
	st := s.GetStatus()
	ready, message := SourceState(s)
	from, ref := s.GetSpec().GetDir().GetPath(), ""
	if g := s.GetSpec().GetGit(); g != nil {
		from, ref = g.Url, api.RefText(g.Ref)
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

// Delivered returns a cell with the last webhook delivery and its result.
func Delivered(now time.Time, d *carav1.Delivery) term.Cell {
	if d == nil {
		return term.Text("")
	}
	c := term.Ago(now, d.GetTime())
	c.Text += ", " + strings.TrimPrefix(term.Line(d.GetEvent()+": "+d.GetResult()), ": ")
	return c
}

// SourceState summarizes a source's conditions. Problems come first.
func SourceState(s *carav1.Source) (ready term.Cell, message string) {
	if s.GetMetadata().GetDeletionTimestamp() != nil {
		return term.Cell{Text: "Deleting", Colour: term.Faint}, "letting go of its projects"
	}
	if s.GetSpec().GetSuspend() {
		return term.Cell{Text: "Suspended", Colour: term.Yellow}, "nothing is fetched, applied or pruned"
	}
	if c := api.SourceProblem(s); c != nil && c.GetType() != api.CondReady {
		return term.Cell{Text: api.StatusFalse, Colour: term.Red}, c.GetType() + ": " + c.GetMessage()
	}
	conditions := s.GetStatus().GetConditions()
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
