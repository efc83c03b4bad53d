package cli

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type logsOptions struct {
	services   []string
	follow     bool
	tail       int32
	since      time.Duration
	timestamps bool
	previous   bool
}

func (a *app) logsCommand() *cobra.Command {
	o := logsOptions{}
	cmd := &cobra.Command{
		Use: "logs PROJECT[/SERVICE] [SERVICE...]", Short: "Show what a project's containers wrote", Args: cobra.MinimumNArgs(1),
		Long: "Show what a project's containers wrote. The lines of several services are in the order of their times; where they are\n" +
			"more than 8 MiB, what is further apart than that comes as the node sends it. With -f lines are shown as they come, over restarts and updates, until\n" +
			"the project is gone or none of its services will run again.",
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0], "")
			if err != nil {
				return err
			}
			if t.service != "" {
				o.services = append(o.services, t.service)
			}
			o.services = append(o.services, args[1:]...)
			return a.logs(cmd.Context(), t.project, o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&o.services, "service", "s", nil, "only these services")
	offer(cmd, "service", a.completeServiceFlag)
	f.BoolVarP(&o.follow, "follow", "f", false, "stay and show new lines")
	f.Int32Var(&o.tail, "tail", -1, "only so many of each service's last lines; -1 shows all")
	f.DurationVar(&o.since, "since", 0, "only lines of the last while, such as 10m")
	f.BoolVarP(&o.previous, "previous", "p", false, "what was written before each container's last start")
	f.BoolVar(&o.timestamps, "timestamps", false, "begin each line with its time")
	return cmd
}

// tailOf is what the API calls it: 0 for all, below 0 for none.
func tailOf(lines int32) int32 {
	switch {
	case lines < 0:
		return 0
	case lines == 0:
		return -1
	}
	return lines
}

func (a *app) logs(ctx context.Context, project string, o logsOptions) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	req := &carav1.LogsRequest{Name: project, Services: o.services, Follow: o.follow, Tail: tailOf(o.tail), Previous: o.previous}
	if o.since > 0 {
		req.Since = timestamppb.New(a.now().Add(-o.since))
	}
	p, err := c.GetProject(ctx, &carav1.GetRequest{Name: project})
	if err != nil {
		return err
	}
	show := newLogPrinter(a.Out, p, o)
	order := &logOrder{emit: show.print}
	if show.prefix && !o.follow {
		order.most = maxHeldLogs
	}
	mark := logMark{}
	for {
		opened := time.Now()
		err := a.copyLogs(ctx, c, req, order, mark)
		order.flush() // what came before an error, too
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case !o.follow || api.Code(err) != codes.Unavailable || len(mark) == 0 && time.Since(opened) < resumeAfter:
			return err
		}
		if mark.away() {
			fmt.Fprintf(a.Err, "(%s; the logs go on when it is back)\n", term.Line(api.ProblemOf(err).GetDetail()))
		}
		select {
		case <-ctx.Done():
		case <-time.After(resumeAfter):
		}
		mark.resume(req)
	}
}

// resumeAfter is the pause before logs that broke off are asked for again.
const resumeAfter = time.Second

// copyLogs copies one stream of logs to its end, without what mark has of an earlier one.
func (a *app) copyLogs(ctx context.Context, c carav1.ProjectServiceClient, req *carav1.LogsRequest, order *logOrder, mark logMark) error {
	stream, err := c.Logs(ctx, req)
	if err != nil {
		return err
	}
	for {
		l, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if l.Lost > 0 {
			fmt.Fprintf(a.Err, "(%d lines of %s were lost: they came faster than they were read)\n", l.Lost, term.Clean(l.Service))
		}
		if mark.isNew(l) {
			order.add(l)
		}
	}
}

// logPrinter puts a prefix before each line where there is more than one service.
type logPrinter struct {
	w      io.Writer
	o      logsOptions
	prefix bool
	width  int
	colour bool
}

func newLogPrinter(w io.Writer, p *carav1.Project, o logsOptions) *logPrinter {
	lp := &logPrinter{w: w, o: o, colour: term.Colourful(w)}
	shown := 0
	for _, s := range p.GetSpec().GetServices() {
		if len(o.services) == 0 || slices.Contains(o.services, s.Name) {
			lp.width = max(lp.width, len(s.Name))
			shown++
		}
	}
	lp.prefix = shown > 1
	return lp
}

func (lp *logPrinter) print(l *carav1.LogLine) {
	var b strings.Builder
	if lp.prefix {
		name := fmt.Sprintf("%-*s | ", lp.width, term.Clean(l.Service))
		if lp.colour {
			name = serviceColour(l.Service) + name + term.Reset
		}
		b.WriteString(name)
	}
	if lp.o.timestamps {
		b.WriteString(l.Time.AsTime().Format(time.RFC3339Nano) + " ")
	}
	b.WriteString(term.Clean(strings.TrimRight(l.Line, "\r")))
	fmt.Fprintln(lp.w, b.String())
}

// serviceColour is always the same for one name.
func serviceColour(name string) string {
	colours := []string{"\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[32m", "\x1b[33m"}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash.Hash never returns an error
	return colours[h.Sum32()%uint32(len(colours))]
}
