package robustness

import (
	"cmp"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/fault"
	"github.com/caravanserai/cara/e2e/robustness/scenario"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

func TestMain(m *testing.M) {
	testneed.AtOnce(4) // they mostly wait
	os.Exit(m.Run())
}

// TestRobustness runs each scenario. The environment chooses: CARA_ROBUSTNESS_LENGTH of the traffic, _SEED, _SCENARIO, _FAULTS
// (names, separated by commas), _REPORT (a directory), _RUNS (how many, each with another seed) and _CLOCKS (if set, faults step clocks, too;
// that needs other builds of all programs).
func TestRobustness(t *testing.T) {
	testneed.NotShort(t)
	seed := rand.Uint64()
	if text := env("SEED"); text != "" {
		given, err := strconv.ParseUint(text, 10, 64)
		must(t, err)
		seed = given
	}
	length, err := time.ParseDuration(cmp.Or(env("LENGTH"), "10s"))
	must(t, err)
	runs, err := strconv.Atoi(cmp.Or(env("RUNS"), "1"))
	must(t, err)
	scenarios, faults := chosen(t)
	bin := t.TempDir()
	build, clocks := testcluster.Build, env("CLOCKS") != ""
	if clocks {
		build = testcluster.BuildStepped
	}
	must(t, build(t.Context(), bin))
	for _, s := range scenarios {
		for n := range runs {
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				scenario.Run(t, s, scenario.Options{Seed: seed + uint64(n), Length: length, Bin: bin, Clocks: clocks, Faults: faults, Report: env("REPORT")})
			})
		}
	}
}

// chosen returns the scenarios and the names of the faults that the environment chooses; without names, all faults are.
func chosen(t *testing.T) (scenarios []scenario.Scenario, faults []string) {
	t.Helper()
	scenarios = scenario.All()
	if name := env("SCENARIO"); name != "" {
		scenarios = slices.DeleteFunc(scenarios, func(s scenario.Scenario) bool { return s.Name != name })
		if len(scenarios) == 0 {
			t.Fatalf("there is no scenario %q", name)
		}
	}
	if text := env("FAULTS"); text != "" {
		faults = strings.Split(text, ",")
	}
	for _, name := range faults {
		if !slices.ContainsFunc(fault.All(), func(f fault.Fault) bool { return f.Name == name }) {
			t.Fatalf("there is no fault %q", name)
		}
	}
	return scenarios, faults
}

func env(name string) string { return os.Getenv("CARA_ROBUSTNESS_" + name) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
