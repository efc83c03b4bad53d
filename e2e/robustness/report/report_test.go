package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// TestWrite: a report has all files, and its text says how to repeat the run.
func TestWrite(t *testing.T) {
	logs, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(logs, "server.log"), []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ops := []model.Operation{{Start: 1, End: 2, Call: model.Call{Kind: model.Read, Key: "p"}, Result: model.Result{Outcome: model.Done, Value: 7}}}
	f := &Failure{
		History: &model.History{Scenario: "alone", Seed: 42, Operations: ops}, Verdict: model.Check(ops, time.Second),
		Problems: []string{"a write is lost"}, Length: time.Minute, Faults: []string{"cut link", "kill agent"}, Logs: []string{logs}, Dir: filepath.Join(dir, "new"),
	}
	text, err := f.Write()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"a write is lost", "make robustness RUNS=1 SCENARIO=alone SEED=42 LENGTH=1m0s FAULTS='cut link,kill agent' CLOCKS=\n"} {
		if !strings.Contains(text, part) {
			t.Errorf("the text does not say %q:\n%s", part, text)
		}
	}
	for _, name := range []string{"problems.txt", "history.json", "calls.html", "logs-0/server.log"} {
		if found, err := filepath.Glob(filepath.Join(dir, "new", "*", name)); err != nil || len(found) != 1 {
			t.Errorf("%s: %q, %v", name, found, err)
		}
	}
}
