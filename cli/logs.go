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
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/logstream"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type logsOptions struct {
	servicesOptions
	follow     bool
	tail       int32
	since      time.Duration
	timestamps bool
	previous   bool
}

func newLogs(a *app) *cobra.Command {
	o := &logsOptions{servicesOptions: servicesOptions{app: a}}
	cmd := command(&cobra.Command{
		Use: "logs PROJECT[/SERVICE] [SERVICE...]", Short: "Show what a project's containers wrote", Args: cobra.MinimumNArgs(1),
		Long: "Show what a project's containers wrote. The lines of several services are sorted by time, as far as they are within\n" +
			"8 MiB of each other. With -f lines are shown as they come, over restarts and updates, until the project is gone or\n" +
			"none of its services will run again.",
		Example:           "  caractrl logs shop -f\n  caractrl logs shop/web --since 10m --tail 100\n  caractrl logs shop --previous",
		ValidArgsFunction: completion{a}.targets,
	}, o)
	o.flag(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "keep running and show new lines")
	f.Int32Var(&o.tail, "tail", -1, "only this many of each service's last lines; -1 shows all")
	f.DurationVar(&o.since, "since", 0, "only lines of the last while, such as 10m")
	f.BoolVarP(&o.previous, "previous", "p", false, "show what was written before each container's last start")
	f.BoolVar(&o.timestamps, "timestamps", false, "begin each line with its time")
	return cmd
}

// tailOf converts --tail for the API, where 0 means all lines and a negative number none.
func tailOf(lines int32) int32 {
	switch {
	case lines < 0:
		return 0
	case lines == 0:
		return -1
	}
	return lines
}

func (o *logsOptions) run(ctx context.Context) error {
	c := o.projects()
	req := &carav1.LogsRequest{Name: o.project, Services: o.services, Follow: o.follow, Tail: tailOf(o.tail), Previous: o.previous}
	if o.since > 0 {
		req.Since = timestamppb.New(o.now().Add(-o.since))
	}
	p, err := c.GetProject(ctx, kind.ByName(o.project))
	if err != nil {
		return err
	}
	show := newLogPrinter(o.Out, p, o)
	order := &logstream.Order{Emit: show.print}
	if show.prefix && !o.follow {
		order.Most = logstream.MaxHeld
	}
	mark := logstream.Mark{}
	for {
		opened := time.Now()
		err := o.copy(ctx, c, req, order, mark)
		order.Flush() // also after an error
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case !o.follow || api.Code(err) != codes.Unavailable || len(mark) == 0 && time.Since(opened) < shortestStream:
			return err
		}
		if mark.Away() {
			fmt.Fprintf(o.Err, "(%s; the logs go on when it is back)\n", term.Line(api.ProblemOf(err).GetDetail()))
		}
		pause(ctx)
		mark.Resume(req)
	}
}

// shortestStream is the shortest life of a stream that is resumed although it broke before its first line.
const shortestStream = time.Second

// copy copies one stream of logs to its end, without the lines that mark knows from an earlier stream.
func (o *logsOptions) copy(ctx context.Context, c carav1.ProjectServiceClient, req *carav1.LogsRequest, order *logstream.Order, mark logstream.Mark) error {
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
			fmt.Fprintf(o.Err, "(%d lines of %s were lost: they came faster than they were read)\n", l.Lost, term.Clean(l.Service))
		}
		if mark.IsNew(l) {
			order.Add(l)
		}
	}
}

// logPrinter prints lines, with a prefix if there is more than one service.
type logPrinter struct {
	w      io.Writer
	o      *logsOptions
	prefix bool
	width  int
	colour bool
}

func newLogPrinter(w io.Writer, p *carav1.Project, o *logsOptions) *logPrinter {
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

// serviceColour returns the same colour for the same name.
func serviceColour(name string) string {
	colours := []string{"\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[32m", "\x1b[33m"}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash.Hash never returns an error
	return colours[h.Sum32()%uint32(len(colours))]
}
