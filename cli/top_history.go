package cli

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/usage"
)

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
