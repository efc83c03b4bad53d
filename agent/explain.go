package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/text"
)

// logTail is how many last log lines a failure quotes.
const logTail = 20

// explain adds the last lines of the container's log to a failure.
func (o *observer) explain(ctx context.Context, want *step.Want, have *step.Have, f *step.Failure) *step.Failure {
	out := *f
	c := have.Find(f.Container)
	if c.ID == "" {
		return &out
	}
	if svc := want.Service(c.Labels[api.LabelService]); svc != nil && !want.Knows(svc, &c) {
		out.Message += "\nits log " + step.NotShown
		return &out
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var lines []string
	err := o.engine.Logs(ctx, f.Container, engine.LogOptions{Tail: logTail}, func(l engine.LogLine) error {
		lines = append(lines, text.Clip(text.Line(want.Values.Text(l.Text)), 300))
		return nil
	})
	if err != nil {
		out.Message += fmt.Sprintf(" (its log cannot be read: %v)", want.Values.Error(err))
	}
	if len(lines) > 0 {
		out.Message += "\nlast lines of its log:\n  " + strings.Join(lines, "\n  ")
	}
	return &out
}
