package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type topOptions struct {
	target
	watch  bool
	output string
}

func (a *app) topCommand() *cobra.Command {
	o := topOptions{}
	var service string
	cmd := &cobra.Command{
		Use: "top PROJECT[/SERVICE]", Short: "Show what the services of a project use", Args: cobra.ExactArgs(1),
		Long: "Show what the running services of a project use: CPU in thousandths of a core over the last second, memory without the\n" +
			"cache that can be dropped and its share of the limit (of the machine, where there is none), bytes over the network since\n" +
			"the container started, processes and threads. It takes a second or two to measure.",
		ValidArgsFunction: a.completeTarget,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.target, err = parseTarget(args[0], service); err != nil {
				return err
			}
			if o.output != "" && o.output != "json" && o.output != "yaml" {
				return fmt.Errorf("unknown output format %q: want json or yaml", o.output)
			}
			return a.top(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	a.serviceFlag(cmd, &service, "only this service")
	f.BoolVarP(&o.watch, "watch", "w", false, "stay and show new figures each second: in place at a terminal, else one after the other")
	f.StringVarP(&o.output, "output", "o", "", "json|yaml; with -w, JSON is one line each second")
	offer(cmd, "output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) top(ctx context.Context, o topOptions) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	req := &carav1.TopRequest{Name: o.project, Follow: o.watch}
	if o.service != "" {
		req.Services = []string{o.service}
	}
	if term.IsTerminal(a.Err) {
		fmt.Fprint(a.Err, "measuring...\r")
		defer fmt.Fprint(a.Err, clearLine) // also where no figures came
	}
	stream, err := c.Top(ctx, req)
	if err != nil {
		return err
	}
	show := topScreen{app: a, o: o, table: term.NewTable(a.Out)}
	for {
		look, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil && o.watch:
			return nil
		case err != nil:
			return err
		}
		if err := show.show(look); err != nil {
			return err
		}
	}
}

const (
	clearLine = "\x1b[K"
	clearDown = "\x1b[J"
)

// topScreen shows one look after the other.
type topScreen struct {
	*app
	o     topOptions
	table *term.Table
	lines int // that the look before took
}

func (s *topScreen) show(look *carav1.TopResponse) error {
	switch {
	case s.o.output == "json" && s.o.watch:
		data, err := protojson.Marshal(look)
		if err != nil {
			return fmt.Errorf("encode as JSON: %w", err)
		}
		return write(s.Out, escape(string(data))+"\n")
	case s.o.output != "":
		if s.o.watch {
			if err := write(s.Out, "---\n"); err != nil {
				return err
			}
		}
		return printObjects(s.Out, s.o.output, false, []proto.Message{look})
	}
	var rows [][]term.Cell
	if s.lines == 0 || term.IsTerminal(s.Out) {
		rows = append(rows, term.Header("SERVICE", "CPU", "MEMORY", "MEM%", "NET RX/TX", "PIDS"))
	}
	for _, u := range look.GetServices() {
		rows = append(rows, usageRow(u))
	}
	if s.lines > 0 && term.IsTerminal(s.Out) {
		fmt.Fprintf(s.Out, "\x1b[%dA%s", s.lines, clearDown)
	}
	s.lines = len(rows)
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
