package usage_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/usage"
)

func TestMeasures(t *testing.T) {
	var got []string
	for _, m := range usage.Measures(&carav1.ServiceUsageHistory{
		CpuMillis: []float32{-1, 250.4}, MemoryBytes: []float32{1536, 300 << 20}, ReceivedBytesPerSecond: []float32{-1, 0},
		SentBytesPerSecond: []float32{-1, 1 << 20}, RequestsPerSecond: []float32{-1, -1},
	}) {
		got = append(got, m.Name+" "+m.Text(m.Last))
	}
	if diff := cmp.Diff([]string{"CPU 250m", "Memory 300 MiB", "Received 0 B/s", "Sent 1.00 MiB/s"}, got); diff != "" {
		t.Errorf("what was never measured is left out (-want +got):\n%s", diff)
	}
	requests := usage.Measures(&carav1.ServiceUsageHistory{RequestsPerSecond: []float32{0.0667}})
	if len(requests) != 1 || requests[0].Text(0.0667) != "0.07/s" || requests[0].Text(12.34) != "12.3/s" || requests[0].Text(1234.5) != "1234/s" {
		t.Errorf("the requests are %v", requests)
	}
}

func TestSummarise(t *testing.T) {
	for name, c := range map[string]struct {
		values []float32
		want   usage.Summary
		ok     bool
	}{
		"nothing":   {nil, usage.Summary{}, false},
		"gaps only": {[]float32{-1, -1}, usage.Summary{}, false},
		"one":       {[]float32{7}, usage.Summary{Min: 7, Mean: 7, Max: 7, Last: 7}, true},
		"with gaps": {[]float32{-1, 4, -1, 2, 9, -1}, usage.Summary{Min: 2, Mean: 5, Max: 9, Last: 9}, true},
		"zero":      {[]float32{0, 4}, usage.Summary{Min: 0, Mean: 2, Max: 4, Last: 4}, true},
	} {
		if got, ok := usage.Summarise(c.values); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v %t, want %+v %t", name, got, ok, c.want, c.ok)
		}
	}
}

func TestShrink(t *testing.T) {
	for name, c := range map[string]struct {
		values []float32
		want   []float32
	}{
		"a whole hour":   {[]float32{1, 5, 2, 2, 3, 0}, []float32{5, 2, 3}},
		"the last part":  {[]float32{4}, []float32{-1, -1, 4}},
		"with gaps":      {[]float32{-1, -1, -1, 2, 3, -1}, []float32{-1, 2, 3}},
		"more than that": {[]float32{9, 9, 1, 1, 2, 2, 3, 3}, []float32{1, 2, 3}},
		"nothing":        {nil, []float32{-1, -1, -1}},
	} {
		if got := usage.Shrink(c.values, 6, 3); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
