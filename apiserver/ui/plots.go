package ui

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/usage"
)

// A plot is an hour wide and ends now.
const (
	plotWidth  = 240 // of the drawing; the style sheet says how large it is shown
	plotHeight = 60
)

// plots are what the services of a project used in the last hour.
type plots struct {
	Project  string
	Problem  string // the reason if they cannot be shown
	Services []servicePlots
}

type servicePlots struct {
	Name  string
	Plots []plot
}

// plot is one drawing.
type plot struct {
	Name, Now, Most string
	Label           string // what the drawing says, for those who do not see it
	Line, Area      string // paths of SVG
}

// plots serves the plots of a project as a part of its view. The browser asks for it while somebody looks.
func (u *UI) plots(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	out := u.plotsOf(r.Context(), name)
	u.send(w, http.StatusOK, "plots", out)
	return nil
}

func (u *UI) plotsOf(ctx context.Context, name string) plots {
	history, err := u.api.projects.GetUsageHistory(ctx, &carav1.UsageHistoryRequest{Name: name})
	out := plots{Project: name}
	switch {
	case api.Code(err) == codes.Unimplemented:
		out.Problem = "The agent of this project's node is too old: it does not keep what services use. Update cara-agent there."
	case err != nil:
		out.Problem = api.ProblemOf(api.Wire(err)).GetDetail()
	}
	for _, h := range history.GetServices() {
		s := servicePlots{Name: h.GetService()}
		for _, m := range usage.Measures(h) {
			s.Plots = append(s.Plots, plotOf(h.GetService(), m, h.GetInterval().AsDuration()))
		}
		if len(s.Plots) > 0 {
			out.Services = append(out.Services, s)
		}
	}
	return out
}

// plotOf draws the values of a service. The top of the drawing is the largest value.
func plotOf(service string, m usage.Measure, interval time.Duration) plot {
	p := plot{Name: m.Name, Now: m.Text(m.Last), Most: m.Text(m.Max)}
	if m.Values[len(m.Values)-1] < 0 {
		p.Now = "not measured"
	}
	covered := min(time.Duration(len(m.Values))*interval, usage.Hour)
	p.Label = fmt.Sprintf("%s of %s in the last %s: now %s, at least %s, on average %s, at most %s",
		m.Name, service, minutes(covered), p.Now, m.Text(m.Min), m.Text(m.Mean), m.Text(m.Max))
	p.Line, p.Area = paths(m.Values, m.Max, interval)
	return p
}

func minutes(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f seconds", d.Seconds())
	}
	return fmt.Sprintf("%.0f minutes", d.Minutes())
}

// paths returns the line through the values and the area below it, as paths of SVG. The last value is at the right. A value that was
// not measured interrupts the line.
func paths(values []float32, most float32, interval time.Duration) (line, area string) {
	if interval <= 0 {
		return "", ""
	}
	step := plotWidth * interval.Seconds() / usage.Hour.Seconds()
	var l, a strings.Builder
	open := false
	for i, v := range values {
		x := plotWidth - float64(len(values)-1-i)*step
		if v < 0 || x < 0 {
			continue
		}
		y := float64(plotHeight)
		if most > 0 {
			y = plotHeight * (1 - float64(v/most))
		}
		ends := i == len(values)-1 || values[i+1] < 0
		if open {
			fmt.Fprintf(&l, "L%.1f %.1f", x, y)
			fmt.Fprintf(&a, "L%.1f %.1f", x, y)
		} else {
			fmt.Fprintf(&l, "M%.1f %.1f", x, y)
			fmt.Fprintf(&a, "M%.1f %dV%.1f", x, plotHeight, y)
		}
		if ends && !open {
			l.WriteString("h.1") // a dot
		}
		if ends {
			fmt.Fprintf(&a, "V%dZ", plotHeight)
		}
		open = !ends
	}
	return l.String(), a.String()
}
