package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/usage"
)

type topOptions struct {
	serviceOptions
	watch   bool
	history bool
	output  string
}

func newTop(a *app) *cobra.Command {
	o := &topOptions{serviceOptions: serviceOptions{app: a}}
	cmd := command(&cobra.Command{
		Use: "top PROJECT[/SERVICE]", Short: "Show what the services of a project use", Args: cobra.ExactArgs(1),
		Long: "Show what the running services of a project use: CPU in thousandths of a core over the last second, memory without the\n" +
			"cache that can be dropped and its share of the limit (of the machine, without a limit), bytes over the network since\n" +
			"the container started, processes and threads. It takes a second or two to measure.\n\n" +
			"With --history: what they used in the last hour, as the agent of their node has measured it every 15 seconds. A block is a minute and\n" +
			"a half, and as high as the largest value in it; a space means that nothing was measured.",
		Example: "  caractrl top shop\n  caractrl top shop/web -w\n  caractrl top shop --history",
	}, o)
	o.flag(cmd, "only this service")
	f := cmd.Flags()
	f.BoolVarP(&o.watch, "watch", "w", false, "keep running and show new figures every second: in place on a terminal, else one after the other")
	f.BoolVar(&o.history, "history", false, "show the last hour")
	cmd.MarkFlagsMutuallyExclusive("watch", "history")
	f.StringVarP(&o.output, "output", "o", "", "json|yaml; with -w, JSON is one line every second")
	offer(cmd, "output", cobra.FixedCompletions([]string{"json", "yaml"}, noFiles))
	return cmd
}

func (o *topOptions) parse(args []string) error {
	if o.output != "" && o.output != "json" && o.output != "yaml" {
		return fmt.Errorf("unknown output format %q: want json or yaml", o.output)
	}
	return o.serviceOptions.parse(args)
}

func (o *topOptions) run(ctx context.Context) error {
	c := o.projects()
	var services []string
	if o.service != "" {
		services = []string{o.service}
	}
	if o.history {
		return o.showHistory(ctx, c, services)
	}
	req := &carav1.TopRequest{Name: o.project, Services: services, Follow: o.watch}
	if term.IsTerminal(o.Err) {
		fmt.Fprint(o.Err, "measuring...\r")
		defer fmt.Fprint(o.Err, clearLine) // also if no sample arrived
	}
	stream, err := c.Top(ctx, req)
	if err != nil {
		return err
	}
	screen := &topScreen{topOptions: o, live: term.NewLive(o.Out)}
	for {
		sample, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil && o.watch:
			return nil
		case err != nil:
			return err
		}
		if err := screen.show(sample); err != nil {
			return err
		}
	}
}

const clearLine = "\x1b[K"

// topScreen shows the samples.
type topScreen struct {
	*topOptions
	live  *term.Live  // nil if the table is not drawn in place
	table *term.Table // shared by all samples if they are printed one after the other
}

func (s *topScreen) show(sample *carav1.TopResponse) error {
	switch {
	case s.output == "json" && s.watch:
		return kind.PrintLine(s.Out, sample)
	case s.output != "":
		if s.watch {
			fmt.Fprintln(s.Out, "---")
		}
		return kind.Print(s.Out, s.output, false, []proto.Message{sample})
	}
	var rows [][]term.Cell
	if s.table == nil || s.live != nil {
		rows = append(rows, term.Header("SERVICE", "CPU", "MEMORY", "MEM%", "NET RX/TX", "PIDS"))
	}
	for _, u := range sample.GetServices() {
		rows = append(rows, usageRow(u))
	}
	if s.live != nil {
		s.live.Draw(rows)
		return nil
	}
	if s.table == nil {
		s.table = term.NewTable(s.Out)
	}
	s.table.Print(rows...)
	return nil
}

func usageRow(u *carav1.ServiceUsage) []term.Cell {
	share := "-"
	if u.GetMemoryLimitBytes() > 0 {
		share = fmt.Sprintf("%.1f", 100*float64(u.GetMemoryBytes())/float64(u.GetMemoryLimitBytes()))
	}
	return []term.Cell{
		term.Text(u.GetService()),
		{Text: fmt.Sprintf("%dm", u.GetCpuMillis())},
		kind.Size(u.GetMemoryBytes()),
		{Text: share},
		{Text: kind.Size(u.GetReceivedBytes()).Text + "/" + kind.Size(u.GetSentBytes()).Text},
		{Text: fmt.Sprint(u.GetPids())},
	}
}

// blocks is how many blocks a history has.
const blocks = 40

// showHistory shows what services used in the last hour.
func (o *topOptions) showHistory(ctx context.Context, c carav1.ProjectServiceClient, services []string) error {
	history, err := c.GetUsageHistory(ctx, &carav1.UsageHistoryRequest{Name: o.project, Services: services})
	if err != nil {
		return err
	}
	if o.output != "" {
		return kind.Print(o.Out, o.output, false, []proto.Message{history})
	}
	rows := historyRows(history)
	if len(rows) == 0 {
		fmt.Fprintf(o.Err, "nothing of project %s was measured yet; the first figures of a service appear half a minute after its start\n", o.project)
		return nil
	}
	term.NewTable(o.Out).Print(append([][]term.Cell{term.Header("SERVICE", "WHAT", "NOW", "MEAN", "MAX", "LAST HOUR")}, rows...)...)
	return nil
}

func historyRows(history *carav1.UsageHistory) (rows [][]term.Cell) {
	for _, h := range history.GetServices() {
		for _, m := range usage.Measures(h) {
			now := m.Text(m.Last)
			if m.Values[len(m.Values)-1] < 0 {
				now = term.Dash("")
			}
			hour := len(m.Values)
			if every := h.GetInterval().AsDuration(); every > 0 {
				hour = int(usage.Hour / every)
			}
			rows = append(rows, []term.Cell{
				term.Text(h.GetService()),
				{Text: m.Name},
				{Text: now},
				{Text: m.Text(m.Mean)},
				{Text: m.Text(m.Max)},
				{Text: bars(usage.Shrink(m.Values, hour, blocks), m.Max)},
			})
		}
	}
	return rows
}

// bars draws values as blocks. A space was not measured.
func bars(values []float32, most float32) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	out := make([]rune, len(values))
	for i, v := range values {
		switch {
		case v < 0:
			out[i] = ' '
		case most <= 0:
			out[i] = levels[0]
		default:
			out[i] = levels[min(int(v/most*float32(len(levels))), len(levels)-1)]
		}
	}
	return string(out)
}
