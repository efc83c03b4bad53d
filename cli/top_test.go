package cli

import (
	"bytes"
	"testing"

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
		s := newTopScreen(&c.o)
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
