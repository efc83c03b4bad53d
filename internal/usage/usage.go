// Package usage reads a usage history, for the plots of the page and the table of caractrl: what is measured, in which unit, and what
// the values come to. It is pure.
package usage

import (
	"fmt"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// Hour is how long a history is at most.
const Hour = time.Hour

// Measure is one kind of values of a service, with what they come to. A value below 0 was not measured.
type Measure struct {
	Name   string
	Values []float32
	Summary
	Text func(float32) string // a value with its unit
}

// Measures returns what was measured of a service, in the order in which it is shown.
func Measures(h *carav1.ServiceUsageHistory) (out []Measure) {
	add := func(name string, values []float32, format func(float32) string) {
		if s, ok := Summarise(values); ok {
			out = append(out, Measure{name, values, s, format})
		}
	}
	perSecond := func(v float32) string { return bytes(v) + "/s" }
	add("CPU", h.GetCpuMillis(), func(v float32) string { return fmt.Sprintf("%.0fm", v) })
	add("Memory", h.GetMemoryBytes(), bytes)
	add("Received", h.GetReceivedBytesPerSecond(), perSecond)
	add("Sent", h.GetSentBytesPerSecond(), perSecond)
	add("Requests", h.GetRequestsPerSecond(), func(v float32) string { return few(v) + "/s" })
	return out
}

// Summary is what values come to. Last is the last one that was measured.
type Summary struct{ Min, Mean, Max, Last float32 }

// Summarise returns false if no value was measured.
func Summarise(values []float32) (s Summary, ok bool) {
	total, n := 0.0, 0
	for _, v := range values {
		if v < 0 {
			continue
		}
		if n == 0 {
			s.Min, s.Max = v, v
		}
		s.Min, s.Max, s.Last = min(s.Min, v), max(s.Max, v), v
		total += float64(v)
		n++
	}
	if n > 0 {
		s.Mean = float32(total / float64(n))
	}
	return s, n > 0
}

// Shrink returns n values for the values of a whole hour, of which the last ones are given: each is the largest of its part of
// the hour, or below 0 if none of it was measured.
func Shrink(values []float32, hour, n int) []float32 {
	out, hour := make([]float32, n), max(hour, n)
	for i := range out {
		out[i] = -1
	}
	values = values[max(0, len(values)-hour):]
	for i, v := range values {
		at := (hour - len(values) + i) * n / hour
		out[at] = max(out[at], v)
	}
	return out
}

// bytes formats a number of bytes.
func bytes(v float32) string {
	value, prefix := text.Scale(float64(v))
	if prefix == "" {
		return fmt.Sprintf("%.0f B", value)
	}
	return few(float32(value)) + " " + prefix + "B"
}

// few formats a number with about three digits.
func few(v float32) string {
	switch {
	case v == 0 || v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
