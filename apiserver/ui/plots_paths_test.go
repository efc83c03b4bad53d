package ui

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/usage"
)

func TestPaths(t *testing.T) {
	const quarter = 15 * time.Minute // four values are an hour, 60 units each
	for name, c := range map[string]struct {
		values     []float32
		line, area string
	}{
		"nothing":              {nil, "", ""},
		"rises":                {[]float32{0, 5, 10}, "M120.0 60.0L180.0 30.0L240.0 0.0", "M120.0 60V60.0L180.0 30.0L240.0 0.0V60Z"},
		"all zero":             {[]float32{0, 0}, "M180.0 60.0L240.0 60.0", "M180.0 60V60.0L240.0 60.0V60Z"},
		"one value is a dot":   {[]float32{10}, "M240.0 0.0h.1", "M240.0 60V0.0V60Z"},
		"a gap":                {[]float32{10, 10, -1, 5}, "M60.0 0.0L120.0 0.0M240.0 30.0h.1", "M60.0 60V0.0L120.0 0.0V60ZM240.0 60V30.0V60Z"},
		"it has stopped":       {[]float32{10, -1}, "M180.0 0.0h.1", "M180.0 60V0.0V60Z"},
		"more than an hour":    {[]float32{9, 9, 10, 10, 10, 10, 10}, "M0.0 0.0L60.0 0.0L120.0 0.0L180.0 0.0L240.0 0.0", "M0.0 60V0.0L60.0 0.0L120.0 0.0L180.0 0.0L240.0 0.0V60Z"},
		"nothing was measured": {[]float32{-1, -1}, "", ""},
	} {
		line, area := paths(c.values, 10, quarter)
		if line != c.line || area != c.area {
			t.Errorf("%s:\n got %q, %q\nwant %q, %q", name, line, area, c.line, c.area)
		}
	}
	if line, _ := paths([]float32{1}, 1, 0); line != "" {
		t.Errorf("without an interval it draws %q", line)
	}
	if line, _ := paths([]float32{0, 0}, 0, quarter); line != "M180.0 60.0L240.0 60.0" {
		t.Errorf("if all is 0 it draws %q", line)
	}
}

func TestPlotLabel(t *testing.T) {
	text := func(v float32) string { return string(rune('0'+int(v))) + "m" }
	cpu := func(values []float32) usage.Measure {
		s, _ := usage.Summarise(values)
		return usage.Measure{Name: "CPU", Values: values, Summary: s, Text: text}
	}
	p := plotOf("web", cpu([]float32{-1, 2, 4, 3}), 15*time.Second)
	if want := "CPU of web in the last 60 seconds: now 3m, at least 2m, on average 3m, at most 4m"; p.Label != want || p.Now != "3m" || p.Most != "4m" {
		t.Errorf("the plot says %q, want %q", p.Label, want)
	}
	p = plotOf("web", cpu(append(make([]float32, 1000), -1)), 15*time.Second)
	if want := "CPU of web in the last 60 minutes: now not measured, at least 0m, on average 0m, at most 0m"; p.Label != want {
		t.Errorf("the plot says %q, want %q", p.Label, want)
	}
}
