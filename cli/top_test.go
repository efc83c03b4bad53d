package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestTopScreen(t *testing.T) {
	look := &carav1.TopResponse{Services: []*carav1.ServiceUsage{
		{Service: "db", CpuMillis: 1250, MemoryBytes: 300 << 20, MemoryLimitBytes: 1 << 30, ReceivedBytes: 1 << 20, SentBytes: 512, Pids: 31},
		{Service: "web\x1b[31m", MemoryBytes: 1536},
	}}
	table := "" +
		"SERVICE   CPU     MEMORY   MEM%   NET RX/TX   PIDS\n" +
		"db        1250m   300Mi    29.3   1.0Mi/512   31\n" +
		"web       0m      1.5Ki    -      0/0         0\n"
	again := "" +
		"db        1250m   300Mi    29.3   1.0Mi/512   31\n" +
		"web       0m      1.5Ki    -      0/0         0\n"
	for name, c := range map[string]struct {
		o    topOptions
		want string
	}{
		"table": {topOptions{watch: true}, table + again},
		"lines": {topOptions{watch: true, output: "json"}, ""},
	} {
		var b bytes.Buffer
		c.o.app = &app{Streams: Streams{Out: &b}}
		s := &topScreen{topOptions: &c.o, live: term.NewLive(c.o.Out)}
		for range 2 {
			must(t, s.show(look))
		}
		if c.want != "" && b.String() != c.want {
			t.Errorf("%s shows\n%s\nwant\n%s", name, b.String(), c.want)
		}
		if lines := bytes.Count(b.Bytes(), []byte("\n")); c.want == "" && lines != 2 {
			t.Errorf("%s shows %d lines\n%s", name, lines, b.String())
		}
	}
}

func TestHistoryRows(t *testing.T) {
	values := make([]float32, 240)
	for i := range values {
		values[i] = float32(i)
	}
	values[239] = -1
	var b bytes.Buffer
	term.NewTable(&b).Print(historyRows(&carav1.UsageHistory{Services: []*carav1.ServiceUsageHistory{
		{Service: "web\x1b[31m", Interval: durationpb.New(15 * time.Second), CpuMillis: values, MemoryBytes: []float32{1 << 20, 2 << 20}},
		{Service: "new", Interval: durationpb.New(15 * time.Second), CpuMillis: []float32{-1}, RequestsPerSecond: []float32{0}},
	}})...)
	want := "" +
		"web   CPU        -          119m       238m       ▁▁▁▁▁▂▂▂▂▂▃▃▃▃▃▄▄▄▄▅▅▅▅▅▆▆▆▆▆▇▇▇▇▇██████\n" +
		"web   Memory     2.00 MiB   1.50 MiB   2.00 MiB                                          █\n" +
		"new   Requests   0/s        0/s        0/s                                               ▁\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestHistoryAsYAML: a gap and a fraction are numbers, a duration is written as in JSON.
func TestHistoryAsYAML(t *testing.T) {
	var b bytes.Buffer
	must(t, kind.Print(&b, "yaml", false, []proto.Message{&carav1.UsageHistory{Services: []*carav1.ServiceUsageHistory{
		{Service: "db", Interval: durationpb.New(15 * time.Second), CpuMillis: []float32{-1, 0.5}, MemoryBytes: []float32{45000000, -1}},
	}}}))
	for _, want := range []string{"service: db", "interval: 15s", "- -1", "- 0.5", "- 45000000"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it has no %q:\n%s", want, b.String())
		}
	}
}
