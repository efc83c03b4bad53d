package certs

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	ca      = "https://ca.example/directory"
	staging = "https://staging.example/directory"
)

var noon = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(d)) }

func TestDecide(t *testing.T) {
	const day = 24 * time.Hour
	good := func(change func(*carav1.CertificateOrder)) *carav1.CertificateOrder {
		s := &carav1.CertificateOrder{
			Directory: ca, CertificateDirectory: ca, NotBefore: at(-30 * day), NotAfter: at(60 * day), RenewAt: at(29 * day),
			Orders: []*timestamppb.Timestamp{at(-30 * day)},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	failed := &carav1.CertificateOrder{
		Directory: ca, Problem: "it did not work", Failures: 1, NextTry: at(5 * time.Minute), Orders: []*timestamppb.Timestamp{at(-time.Minute)},
	}
	noDNS := &carav1.CertificateOrder{Directory: ca, Problem: "no DNS", Failures: 1, NextTry: at(time.Minute), BeforeOrder: true}
	for name, c := range map[string]struct {
		look Look
		want Step
	}{
		"new host":             {Look{Wanted: true}, Step{Verb: Order, Reason: "the host has no certificate"}},
		"valid":                {Look{Wanted: true, State: good(nil)}, Step{Wait, noon.Add(29 * day), "the certificate is valid until 2026-03-11T12:00:00Z"}},
		"ends soon":            {Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) { s.RenewAt = at(0) })}, Step{Verb: Renew, Reason: "the certificate ends at 2026-03-11T12:00:00Z"}},
		"ended":                {Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) { s.RenewAt, s.NotAfter = at(-day), at(0) })}, Step{Verb: Renew, Reason: "the certificate ended at 2026-01-10T12:00:00Z"}},
		"of another authority": {Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) { s.CertificateDirectory, s.Directory = staging, staging })}, Step{Verb: Order, Reason: "the certificate is from " + staging}},
		"failed":               {Look{Wanted: true, State: failed}, Step{Wait, noon.Add(5 * time.Minute), "it did not work"}},
		"failed, again":        {Look{Wanted: true, State: failed, Again: true}, Step{Wait, noon.Add(5 * time.Minute), "it did not work"}},
		"no DNS, again":        {Look{Wanted: true, State: noDNS, Again: true}, Step{Verb: Order, Reason: "the host has no certificate"}},
		"no DNS":               {Look{Wanted: true, State: noDNS}, Step{Wait, noon.Add(time.Minute), "no DNS"}},
		"failed elsewhere":     {Look{Wanted: true, State: failed, Directory: staging}, Step{Verb: Order, Reason: "the host has no certificate"}},
		"failed before":        {Look{Wanted: true, State: failed, Now: noon.Add(5 * time.Minute)}, Step{Verb: Order, Reason: "the host has no certificate"}},
		"renewal failed": {Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) {
			s.RenewAt, s.Problem, s.NextTry = at(-day), "it did not work", at(time.Hour)
		})}, Step{Wait, noon.Add(time.Hour), "it did not work"}},
		"wrong clock": {
			Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) {
				s.RenewAt, s.Orders = at(-day), []*timestamppb.Timestamp{at(-time.Minute)}
			})},
			Step{Wait, noon.Add(59 * time.Minute), "the certificate is new, though the clock or the authority says that it must be renewed"},
		},
		"recalled": {Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) {
			s.RenewAt, s.Recalled = at(-time.Hour), true
		})}, Step{Verb: Renew, Reason: "the authority wants the certificate to be replaced at once"}},
		"recalled again and again": {
			Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) {
				s.RenewAt, s.Recalled, s.Orders = at(-time.Hour), true, []*timestamppb.Timestamp{at(-8 * day), at(-6 * day), at(-5 * day), at(-4 * day), at(-3 * day)}
			})},
			Step{Wait, noon.Add(day), "the certificate is new, though the clock or the authority says that it must be renewed"},
		},
		"recalled again": {Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) {
			s.RenewAt, s.Recalled, s.Orders = at(-time.Hour), true, []*timestamppb.Timestamp{at(-6 * day), at(-5 * day), at(-2 * time.Hour)}
		})}, Step{Verb: Renew, Reason: "the authority wants the certificate to be replaced at once"}},
		"limit": {
			Look{Wanted: true, Room: noon.Add(time.Minute)},
			Step{Wait, noon.Add(time.Minute), "the cluster has made 200 orders in 3h0m0s: the authority would refuse more"},
		},
		"limit, can wait": {
			Look{Wanted: true, State: good(func(s *carav1.CertificateOrder) { s.RenewAt = at(0) }), Room: noon.Add(time.Minute)},
			Step{Wait, noon.Add(time.Minute), "the cluster has made at least 150 orders in 3h0m0s: the last 50 of 200 are kept for hosts that cannot wait"},
		},
		"limit, nothing to do":          {Look{Wanted: true, State: good(nil), Room: noon.Add(time.Minute)}, Step{Wait, noon.Add(29 * day), "the certificate is valid until 2026-03-11T12:00:00Z"}},
		"unwanted, unknown":             {Look{}, Step{Verb: Wait, Reason: "no project claims the host"}},
		"unwanted, with certificate":    {Look{State: good(nil)}, Step{Wait, noon.Add(29 * day), "no project claims the host: its state is kept until 2026-02-08T12:00:00Z"}},
		"covered by a wildcard":         {Look{State: good(nil), Covered: true}, Step{Verb: Forget, Reason: "the certificate of a wildcard is in use"}},
		"covered, without certificate":  {Look{Covered: true}, Step{Verb: Wait, Reason: "no project claims the host"}},
		"unwanted, certificate is old":  {Look{State: good(func(s *carav1.CertificateOrder) { s.RenewAt = at(0) })}, Step{Verb: Forget, Reason: "no project claims the host"}},
		"unwanted, failed a moment ago": {Look{State: failed}, Step{Wait, noon.Add(59 * time.Minute), "no project claims the host: its state is kept until 2026-01-10T12:59:00Z"}},
		"unwanted, failed long ago":     {Look{State: failed, Now: noon.Add(59 * time.Minute)}, Step{Verb: Forget, Reason: "no project claims the host"}},
		"unwanted, never ordered":       {Look{State: &carav1.CertificateOrder{Problem: "no DNS", NextTry: at(time.Hour)}}, Step{Verb: Forget, Reason: "no project claims the host"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.look.Now.IsZero() {
				c.look.Now = noon
			}
			if c.look.Directory == "" {
				c.look.Directory = ca
			}
			if diff := cmp.Diff(c.want, Decide(c.look)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRoom(t *testing.T) {
	some := func(n int, ago time.Duration) []time.Time { return slices.Repeat([]time.Time{noon.Add(-ago)}, n) }
	for name, c := range map[string]struct {
		orders []time.Time
		want   time.Time
	}{
		"none":          {nil, time.Time{}},
		"one left":      {some(maxOrders-1, time.Hour), time.Time{}},
		"full":          {some(maxOrders, time.Hour), noon.Add(2 * time.Hour)},
		"old ones":      {append(some(maxOrders, orderWindow), some(1, time.Hour)...), time.Time{}},
		"more than all": {append(some(10, 2*time.Hour), some(maxOrders, time.Hour)...), noon.Add(2 * time.Hour)},
		"one goes soon": {append(some(maxOrders-1, time.Hour), some(1, 2*time.Hour)...), noon.Add(time.Hour)},
	} {
		if got := Room(c.orders, noon, maxOrders); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestMostOrders: renewals that can wait leave room for those that cannot.
func TestMostOrders(t *testing.T) {
	const day = 24 * time.Hour
	valid := func(left time.Duration, change func(*carav1.CertificateOrder)) *carav1.CertificateOrder {
		s := &carav1.CertificateOrder{
			NotBefore: at(left - 90*day), NotAfter: at(left), CertificateDirectory: "here",
		}
		if change != nil {
			change(s)
		}
		return s
	}
	for name, c := range map[string]struct {
		state *carav1.CertificateOrder
		want  int
	}{
		"no state":          {nil, maxOrders},
		"no certificate":    {&carav1.CertificateOrder{}, maxOrders},
		"can wait":          {valid(30*day, nil), maxPlanned},
		"can wait a moment": {valid(9*day, nil), maxPlanned},
		"ends soon":         {valid(9*day-time.Second, nil), maxOrders},
		"has ended":         {valid(-day, nil), maxOrders},
		"recalled":          {valid(60*day, func(s *carav1.CertificateOrder) { s.Recalled = true }), maxOrders},
		"another authority": {valid(60*day, func(s *carav1.CertificateOrder) { s.CertificateDirectory = "there" }), maxOrders},
	} {
		if got := MostOrders(c.state, "here", noon); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	orders := slices.Repeat([]time.Time{noon.Add(-time.Hour)}, maxPlanned)
	if at := Room(orders, noon, maxPlanned); !at.Equal(noon.Add(2 * time.Hour)) {
		t.Errorf("a renewal that can wait has room at %v", at)
	}
	if at := Room(orders, noon, maxOrders); !at.IsZero() {
		t.Errorf("a renewal that cannot wait has room at %v", at)
	}
}

func TestRenewAt(t *testing.T) {
	from, to := noon, noon.Add(90*24*time.Hour)
	seen := map[time.Time]bool{}
	for _, host := range []string{"a.example", "b.example", "c.example"} {
		got := RenewAt(host, from, to)
		if left := to.Sub(got); left < 30*24*time.Hour || left > 33*24*time.Hour {
			t.Errorf("%s is renewed %v before its end", host, left)
		}
		if got != RenewAt(host, from, to) {
			t.Errorf("%s has two times", host)
		}
		seen[got] = true
	}
	if len(seen) != 3 {
		t.Errorf("three hosts are renewed at %d times", len(seen))
	}
}

func TestFailed(t *testing.T) {
	had := &carav1.CertificateOrder{Metadata: &carav1.ObjectMeta{Name: "a.example"}, CertificateDirectory: ca, NotAfter: at(time.Hour), Directory: ca, Failures: 2}
	for name, c := range map[string]struct {
		old      *carav1.CertificateOrder
		failure  Failure
		wait     time.Duration
		failures int32
	}{
		"first order":         {&carav1.CertificateOrder{}, Failure{Ordered: true}, 5 * time.Minute, 1},
		"third order":         {had, Failure{Ordered: true}, 20 * time.Minute, 3},
		"hundredth order":     {&carav1.CertificateOrder{Directory: ca, Failures: 99}, Failure{Ordered: true}, 12 * time.Hour, 100},
		"first look":          {&carav1.CertificateOrder{}, Failure{}, 15 * time.Second, 1},
		"hundredth look":      {&carav1.CertificateOrder{Directory: ca, Failures: 99}, Failure{}, 10 * time.Minute, 100},
		"other authority":     {&carav1.CertificateOrder{Directory: staging, Failures: 99}, Failure{Ordered: true}, 5 * time.Minute, 1},
		"retry after":         {had, Failure{Ordered: true, RetryAfter: noon.Add(2 * time.Hour)}, 2 * time.Hour, 3},
		"retry after is near": {had, Failure{Ordered: true, RetryAfter: noon.Add(time.Second)}, 20 * time.Minute, 3},
		"retry after is far":  {had, Failure{Ordered: true, RetryAfter: noon.Add(99999 * time.Hour)}, maxRetryAfter, 3},
	} {
		t.Run(name, func(t *testing.T) {
			c.failure.Problem = strings.Repeat("long \x1b[31m", 400)
			got := Failed(c.old, ca, c.failure, noon)
			if wait := got.GetNextTry().AsTime().Sub(noon); wait != c.wait || got.GetFailures() != c.failures {
				t.Errorf("%d failures, next try after %v, want %d and %v", got.GetFailures(), wait, c.failures, c.wait)
			}
			if len(got.GetProblem()) > maxProblem || strings.Contains(got.GetProblem(), "\x1b") {
				t.Errorf("problem %q", got.GetProblem())
			}
			if want := map[bool]int{true: 1}[c.failure.Ordered]; len(got.GetOrders()) != want {
				t.Errorf("%d orders, want %d", len(got.GetOrders()), want)
			}
			if got.GetNotAfter().AsTime() != c.old.GetNotAfter().AsTime() {
				t.Error("the certificate is gone")
			}
		})
	}
}

func TestOrdersAreBounded(t *testing.T) {
	s := &carav1.CertificateOrder{}
	for i := range 50 {
		s = Failed(s, ca, Failure{Ordered: true}, noon.Add(time.Duration(i)*time.Hour))
	}
	if n := len(s.GetOrders()); n != keptOrders || s.GetOrders()[n-1].AsTime() != noon.Add(49*time.Hour) {
		t.Errorf("%d orders, the last one at %v", n, s.GetOrders()[n-1].AsTime())
	}
}

func TestReaches(t *testing.T) {
	ip := netip.MustParseAddr
	cluster := []Address{{"n1", ip("203.0.113.1")}, {"n2", ip("203.0.113.2")}, {"n2", ip("2001:db8::2")}}
	for name, c := range map[string]struct {
		found   []netip.Addr
		cluster []Address
		nodes   []string
		problem string
	}{
		"one":         {[]netip.Addr{ip("203.0.113.1")}, cluster, []string{"n1"}, ""},
		"mapped":      {[]netip.Addr{ip("::ffff:203.0.113.1")}, cluster, []string{"n1"}, ""},
		"two of one":  {[]netip.Addr{ip("203.0.113.2"), ip("2001:db8::2")}, cluster, []string{"n2"}, ""},
		"both":        {[]netip.Addr{ip("203.0.113.2"), ip("203.0.113.1")}, cluster, []string{"n1", "n2"}, ""},
		"no record":   {nil, cluster, nil, "a.example has no address in DNS: add a record that leads to 2001:db8::2, 203.0.113.1, 203.0.113.2"},
		"wrong":       {[]netip.Addr{ip("198.51.100.7")}, cluster, nil, "a.example leads to 198.51.100.7, which no agent"},
		"partly":      {[]netip.Addr{ip("203.0.113.1"), ip("198.51.100.7")}, cluster, nil, "a.example leads to 198.51.100.7, which no agent"},
		"no address":  {[]netip.Addr{ip("203.0.113.1")}, nil, nil, "no agent has told a public address"},
		"many, wrong": {[]netip.Addr{ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.4"), ip("10.0.0.5"), ip("10.0.0.6")}, cluster, nil, "10.0.0.5 and 1 more"},
	} {
		t.Run(name, func(t *testing.T) {
			nodes, problem := Reaches("a.example", c.found, c.cluster)
			if diff := cmp.Diff(c.nodes, nodes); diff != "" {
				t.Error(diff)
			}
			if c.problem == "" != (problem == "") || !strings.Contains(problem, c.problem) {
				t.Errorf("problem %q, want %q", problem, c.problem)
			}
		})
	}
}

func TestAnswering(t *testing.T) {
	for name, c := range map[string]struct {
		ready, missing, leadsTo []string
		want                    string
	}{
		"all":                 {[]string{"n1", "n2"}, nil, []string{"n1", "n2"}, ""},
		"another is missing":  {[]string{"n1"}, []string{"n2"}, []string{"n1"}, ""},
		"missing":             {[]string{"n1"}, []string{"n2"}, []string{"n1", "n2"}, "node n2 has not confirmed"},
		"not connected":       {[]string{"n1"}, nil, []string{"n2"}, "node n2, whose agent is not connected"},
		"nobody":              {nil, nil, nil, "no agent with public addresses is connected"},
		"unknown, one is ok":  {[]string{"n1"}, []string{"n2"}, nil, ""},
		"unknown, none is ok": {nil, []string{"n2", "n1"}, nil, "check the agents of n1, n2"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Answering(c.ready, c.missing, c.leadsTo)
			if c.want == "" != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
