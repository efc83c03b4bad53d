package meter

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var web = Service{"shop", "u1", "web"}

func cpu(n float32) Values {
	v := nothing()
	v.CPUMillis = n
	return v
}

// cpuOf returns the CPU of a service at interval now, or nil if it is not kept.
func cpuOf(h *History, of Service, now int64) []float32 {
	for _, s := range h.Of(of.Project, of.UID, []string{of.Name}, now, time.Time{}) {
		return s.GetCpuMillis()
	}
	return nil
}

func TestHistory(t *testing.T) {
	type add struct {
		first, last int64
		cpu         float32
	}
	for name, c := range map[string]struct {
		adds []add
		now  int64
		want []float32
	}{
		"nothing":                             {nil, 3, nil},
		"one value":                           {[]add{{3, 3, 7}}, 3, []float32{7}},
		"begins with the first value":         {[]add{{3, 3, 7}, {4, 4, 8}}, 4, []float32{7, 8}},
		"a gap stays a gap":                   {[]add{{3, 3, 7}, {6, 6, 8}}, 6, []float32{7, -1, -1, 8}},
		"it has stopped":                      {[]add{{3, 3, 7}}, 5, []float32{7, -1, -1}},
		"two containers":                      {[]add{{3, 3, 7}, {3, 3, 1}}, 3, []float32{8}},
		"a second container that has started": {[]add{{3, 3, 7}, {3, 3, -1}}, 3, []float32{7}},
		"a mean over several intervals":       {[]add{{1, 1, 7}, {2, 4, 5}}, 4, []float32{7, 5, 5, 5}},
		"a late mean of another container":    {[]add{{1, 1, 7}, {2, 2, 7}, {1, 2, 5}}, 2, []float32{12, 12}},
		"before the first interval":           {[]add{{-3, 1, 7}}, 1, []float32{7, 7}},
		"an hour later":                       {[]add{{1, 1, 7}}, Length + 1, nil},
		"the whole ring in one go":            {[]add{{1, 1, 7}, {Length * 3, Length * 3, 8}}, Length * 3, []float32{8}},
		"only the last hour": {
			[]add{{1, 1, 7}, {Length, Length, 8}, {Length + 1, Length + 1, 9}},
			Length + 1,
			[]float32{8, 9},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHistory(Interval)
			for _, a := range c.adds {
				h.Add(web, a.first, a.last, cpu(a.cpu))
			}
			if got := cpuOf(h, web, c.now); !cmp.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestHistoryIsAlignedAndComplete(t *testing.T) {
	h := NewHistory(Interval)
	end := time.Unix(1_800_000_000, 0)
	h.Add(web, 1, 1, Values{1, 2, 3, 4, 5})
	h.Add(web, 2, 2, Values{unknown, 20, unknown, unknown, 50})
	got := h.Of("shop", "u1", nil, 2, end)
	if len(got) != 1 {
		t.Fatalf("got %d services, want 1", len(got))
	}
	s := got[0]
	if s.GetService() != "web" || !s.GetTime().AsTime().Equal(end) || s.GetInterval().AsDuration() != Interval {
		t.Errorf("got %v, want web until %v", s, end)
	}
	for name, series := range map[string][2][]float32{
		"cpu": {s.GetCpuMillis(), {1, -1}}, "memory": {s.GetMemoryBytes(), {2, 20}}, "received": {s.GetReceivedBytesPerSecond(), {3, -1}},
		"sent": {s.GetSentBytesPerSecond(), {4, -1}}, "requests": {s.GetRequestsPerSecond(), {5, 50}},
	} {
		if !cmp.Equal(series[0], series[1]) {
			t.Errorf("%s is %v, want %v", name, series[0], series[1])
		}
	}
}

// TestHistoryOfAnotherLife: a project that was created again with the same name shows nothing of the one before.
func TestHistoryOfAnotherLife(t *testing.T) {
	h := NewHistory(Interval)
	h.Add(web, 1, 1, cpu(7))
	if got := h.Of("shop", "u2", nil, 1, time.Time{}); got != nil {
		t.Errorf("of another uid: %v, want nothing", got)
	}
	again := Service{"shop", "u2", "api"}
	h.Add(again, 2, 2, cpu(9))
	if got := cpuOf(h, again, 2); !cmp.Equal(got, []float32{9}) {
		t.Errorf("of the new project: %v, want 9", got)
	}
	if got := cpuOf(h, web, 2); got != nil {
		t.Errorf("of the old project: %v, want nothing", got)
	}
	if h.services != 1 {
		t.Errorf("it counts %d services, want 1", h.services)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	h := NewHistory(Interval)
	for n := range MaxServices {
		h.Add(Service{fmt.Sprintf("p%d", n/2), "u", fmt.Sprint(n % 2)}, int64(n/2), int64(n/2), cpu(1))
	}
	now := int64(MaxServices / 2)
	h.Add(web, now, now, cpu(7))
	if got := cpuOf(h, web, now); !cmp.Equal(got, []float32{7}) {
		t.Errorf("the newcomer has %v, want 7", got)
	}
	if h.projects["p0"] != nil || h.projects["p1"] == nil {
		t.Error("want that the oldest project has made room, and no other")
	}
	if h.services != MaxServices-1 {
		t.Errorf("it counts %d services, want %d", h.services, MaxServices-1)
	}
	for n := range h.projects {
		for service := range h.projects[n].services {
			h.Add(Service{n, h.projects[n].uid, service}, now, now, cpu(1))
		}
	}
	for n := range 3 {
		h.Add(Service{"late", "u", fmt.Sprint(n)}, now, now, cpu(1))
	}
	if h.services != MaxServices || len(h.projects["late"].services) != 1 {
		t.Errorf("it has %d services, %d of the latecomer; want %d and 1: those that are measured make no room", h.services, len(h.projects["late"].services), MaxServices)
	}
	h.Expire(now + Length - 1)
	if h.services != MaxServices {
		t.Errorf("within the hour, %d services are left, want all", h.services)
	}
	h.Expire(now + Length)
	if h.services != 0 || len(h.projects) != 0 {
		t.Errorf("after an hour, %d services and %d projects are left, want none", h.services, len(h.projects))
	}
}

func TestSince(t *testing.T) {
	at := func(seconds int, cpu time.Duration, memory, received, sent int64) reading {
		return reading{time.Unix(int64(seconds), 0), cpu, memory, received, sent}
	}
	for name, c := range map[string]struct {
		before, now reading
		want        Values
	}{
		"the first":                 {reading{}, at(15, time.Second, 100, 5, 6), Values{-1, 100, -1, -1, -1}},
		"half a core":               {at(10, time.Second, 1, 10, 20), at(20, 6*time.Second, 2, 30, 50), Values{500, 2, 2, 3, -1}},
		"idle":                      {at(10, time.Second, 1, 10, 20), at(20, time.Second, 1, 10, 20), Values{0, 1, 0, 0, -1}},
		"restarted":                 {at(10, time.Minute, 1, 10, 20), at(20, time.Second, 2, 30, 50), Values{-1, 2, -1, -1, -1}},
		"its network is a new one":  {at(10, time.Second, 1, 10, 20), at(20, time.Second, 2, 0, 50), Values{-1, 2, -1, -1, -1}},
		"no time has passed":        {at(10, time.Second, 1, 10, 20), at(10, 2*time.Second, 2, 30, 50), Values{-1, 2, -1, -1, -1}},
		"nonsense about the memory": {reading{}, at(10, time.Second, -5, 0, 0), Values{-1, 0, -1, -1, -1}},
	} {
		if got := c.now.since(c.before); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestTallySince(t *testing.T) {
	at := func(seconds int, count uint64) tally { return tally{time.Unix(int64(seconds), 0), count} }
	for name, c := range map[string]struct {
		before, now tally
		want        float32
	}{
		"the first":   {tally{}, at(10, 5), unknown},
		"some":        {at(10, 5), at(20, 25), 2},
		"none":        {at(10, 5), at(20, 5), 0},
		"began again": {at(10, 5), at(20, 4), unknown},
	} {
		if got := c.now.since(c.before); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	h := NewHistory(Interval)
	v := Values{1, 2, 3, 4, 5}
	for n := int64(0); b.Loop(); n++ {
		h.Add(web, n, n, v)
	}
}
