package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/fault"
	"github.com/caravanserai/cara/e2e/robustness/model"
	"github.com/caravanserai/cara/e2e/robustness/report"
	"github.com/caravanserai/cara/e2e/robustness/traffic"
	"github.com/caravanserai/cara/e2e/robustness/validate"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testlink"
)

// run is one run of a scenario.
type run struct {
	Scenario
	options  Options
	target   *fault.Target
	first    *testcluster.Cluster // the agents belong to it
	recorder *traffic.Recorder
	watchers []*traffic.Watcher
	nodes    *nodes   // nil without nodes
	keyFile  string   // of the servers on etcd
	fronts   []string // where agents reach these servers

	mu     sync.Mutex
	failed []error // of the traffic itself
}

// Run runs a scenario and fails the test with a report if a check fails.
func Run(t *testing.T, s Scenario, o Options) {
	t.Helper()
	r := &run{Scenario: s, options: o, target: &fault.Target{Links: map[string]*testlink.Link{}}, recorder: traffic.NewRecorder(s.Name, o.Seed)}
	t.Logf("scenario %s, seed %d, length %s", s.Name, o.Seed, o.Length)
	t.TempDir() // the removal of all such directories comes after stop: programs write into them until then
	t.Cleanup(func() { r.stop(t) })
	r.servers(t)
	r.nodesOf(t)
	problems := r.traffic(t)
	problems = append(problems, r.panics()...)
	h := r.recorder.History()
	if h.StaleReads = len(r.target.Servers) > 1; h.StaleReads {
		h.Terms = r.terms()
		if !slices.ContainsFunc(h.Terms, func(t model.Term) bool { return t.Lease > 0 && t.Write > 0 }) {
			problems = append(problems, "no log tells what a loop has written under its lease")
		}
	}
	wrong, verdict := validate.History(h, time.Minute)
	r.judge(t, h, verdict, append(problems, wrong...))
}

// judge logs what was done, and writes a report if something is wrong.
func (r *run) judge(t *testing.T, h *model.History, verdict model.Verdict, problems []string) {
	t.Helper()
	if len(problems) > 0 {
		f := &report.Failure{History: h, Verdict: verdict, Problems: problems, Length: r.options.Length, Faults: r.options.Faults, Clocks: r.options.Clocks, Dir: r.options.Report}
		for _, s := range r.target.Servers {
			f.Logs = append(f.Logs, s.Dir)
		}
		text, err := f.Write()
		if err != nil {
			t.Error(err)
		}
		t.Errorf("%s", text)
	}
	outcomes, faults, streams := map[model.Outcome]int{}, map[string]int{}, 0
	for _, op := range h.Operations {
		outcomes[op.Outcome]++
	}
	for _, f := range h.Faults {
		faults[f.Name]++
	}
	events := 0
	for _, w := range h.Watches {
		for _, s := range w.Segments {
			streams, events = streams+s.Streams, events+len(s.Events)
		}
	}
	if outcomes[model.Done] == 0 || len(h.Faults) == 0 || events == 0 {
		t.Error("nothing was tested: no call was answered, no fault was injected, or no watch told anything")
	}
	t.Logf("%d calls %v, %d lists, %d pushes, %d events on %d streams, faults %v, porcupine says %s",
		len(h.Operations), outcomes, len(h.Listings), len(h.Pushes), events, streams, faults, verdict.Result)
	if r.nodes != nil {
		t.Logf("%s; people's calls %v", r.nodes.sampler, r.nodes.operator.Done())
	}
}

// traffic runs everything at once, until the length is over and the last fault is mended, and waits until the cluster has
// converged.
func (r *run) traffic(t *testing.T) []string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	watching, endWatches := context.WithCancel(t.Context())
	defer endWatches()
	var calls, watches sync.WaitGroup
	servers := r.addresses(t)
	for i := range clients {
		c := &traffic.Client{Recorder: r.recorder, Servers: servers, ID: i, Keys: keys, Hosts: hosts, Random: r.random(i), Think: 20 * time.Millisecond}
		calls.Go(func() { r.note(c.Run(ctx)) })
	}
	for i := range claimers * (len(r.target.Servers) - 1) {
		c := &traffic.Client{Recorder: r.recorder, Servers: servers, ID: clients + i, Hosts: hosts, Random: r.random(clients + i)}
		calls.Go(func() { r.note(c.Claim(ctx)) })
	}
	for i := range watchers {
		w := &traffic.Watcher{Recorder: r.recorder, Servers: servers, ID: i}
		r.watchers = append(r.watchers, w)
		watches.Go(func() { r.note(w.Run(watching)) })
	}
	if r.nodes != nil {
		calls.Go(func() { r.note(r.nodes.pusher.Run(ctx)) })
		calls.Go(func() { r.note(r.nodes.operator.Run(ctx)) })
		watches.Go(func() { r.note(r.nodes.sampler.Run(watching)) })
	}
	r.faults(t)
	stop()
	calls.Wait()
	problems := r.converge(t)
	endWatches()
	watches.Wait()
	if r.nodes != nil {
		found, err := r.nodes.sampler.Problems(t.Context())
		r.note(err)
		problems = append(problems, found...)
	}
	for _, err := range r.failed {
		problems = append(problems, err.Error())
	}
	return problems
}

// faults injects one fault after the other until the length is over. Every kind comes before one comes again.
func (r *run) faults(t *testing.T) {
	t.Helper()
	random := r.random(1000)
	all := fault.Chosen(r.target, r.options.Faults)
	if len(all) == 0 {
		t.Fatalf("none of the faults %q is possible in scenario %s", r.options.Faults, r.Name)
	}
	end := time.Now().Add(r.options.Length)
	for n := 0; time.Now().Before(end); n++ {
		if n%len(all) == 0 {
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		_ = testcluster.Pause(t.Context(), 200*time.Millisecond+time.Duration(random.Int64N(int64(time.Second)))) // traffic without faults
		f, start := all[n%len(all)], r.recorder.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := f.Inject(ctx, r.target, random)
		cancel()
		r.recorder.Fault(f.Name, start)
		if err != nil {
			r.note(fmt.Errorf("%s: %w", f.Name, err))
			return
		}
	}
}

// converge waits for what must be so when nothing is broken and nobody calls, and returns what is not.
func (r *run) converge(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	servers := r.addresses(t)
	var problems []string
	check := func(err error) {
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	if r.nodes != nil {
		check(r.nodes.converge(ctx, r))
	}
	for _, w := range r.watchers {
		check(testcluster.WaitFor(ctx, "a watch has what the list has", func(ctx context.Context) error {
			list, err := servers.List(ctx)
			if err != nil {
				return err
			}
			return w.Differs(traffic.Values(list))
		}))
	}
	return problems
}

// addresses are the servers, with the token of the first one.
func (r *run) addresses(t *testing.T) traffic.Servers {
	t.Helper()
	token, err := r.first.Token()
	r.must(t, err)
	s := traffic.Servers{Token: token}
	for _, c := range r.target.Servers {
		s.Addresses = append(s.Addresses, c.Address())
	}
	return s
}

func (r *run) random(stream int) *rand.Rand {
	return rand.New(rand.NewPCG(r.options.Seed, uint64(stream)))
}

// note keeps an error of the traffic or of a fault for the report.
func (r *run) note(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, err)
}

func (r *run) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eachLog calls f with each log of the servers.
func (r *run) eachLog(f func(server int, file, text string)) {
	for i, s := range r.target.Servers {
		files, err := filepath.Glob(filepath.Join(s.Dir, "*.log"))
		r.note(err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			r.note(err)
			f(i, filepath.Base(file), string(text))
		}
	}
}

// panics returns what no log may have.
func (r *run) panics() []string {
	var found []string
	r.eachLog(func(_ int, file, text string) {
		for _, bad := range []string{"panic:", "goroutine 1 [", "fatal error:"} {
			if at := strings.Index(text, bad); at >= 0 {
				found = append(found, fmt.Sprintf("%s: %.2000s", file, text[at:]))
			}
		}
	})
	return found
}

// termLine says that a server got the lease of a loop, or what the scheduler has written.
var termLine = regexp.MustCompile(`(?m)^time=\S+ level=INFO msg=("this server runs the loop"|"project scheduled") room=(\S+) .*?(?:lease|rev)=(\d+)`)

// terms returns the leases of loops and the writes under them in the servers' logs. A write belongs to the lease that its server got last.
func (r *run) terms() []model.Term {
	var all []model.Term
	r.eachLog(func(server int, _, text string) {
		last := map[string]int64{}
		for _, found := range termLine.FindAllStringSubmatch(text, -1) {
			revision, err := strconv.ParseInt(found[3], 10, 64)
			r.note(err)
			t := model.Term{Server: server, Loop: found[2], Lease: last[found[2]], Write: revision}
			if strings.Contains(found[1], "runs") {
				last[found[2]] = revision
				t.Lease, t.Write = revision, 0
			}
			all = append(all, t)
		}
	})
	return all
}

// stop ends all programs and removes what they have in the engines.
func (r *run) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if r.first == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.first.Agents)) {
		if err := r.first.Agents[name].Kill(); err != nil {
			t.Error(err)
		}
	}
	if r.nodes != nil {
		for _, host := range r.nodes.hosts {
			if err := r.first.Sweep(ctx, host); err != nil {
				t.Error(err)
			}
		}
	}
	for _, s := range r.target.Servers {
		if s.Server == nil {
			continue
		}
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}
