package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// Failure is a run that has found something.
type Failure struct {
	History  *model.History
	Verdict  model.Verdict
	Problems []string
	// Length is how long the traffic lasted.
	Length time.Duration
	// Faults are the names of the faults that were chosen; none are all. Clocks says that clocks could be stepped.
	Faults []string
	Clocks bool
	// Logs are directories with the programs' logs.
	Logs []string
	// Dir gets a folder for the run; empty is the directory for temporary files.
	Dir string
}

// Write writes everything and returns a text for the log of the test.
func (f *Failure) Write() (string, error) {
	if f.Dir != "" {
		if err := os.MkdirAll(f.Dir, 0o755); err != nil {
			return "", fmt.Errorf("write report: %w", err)
		}
	}
	dir, err := os.MkdirTemp(f.Dir, "cara-robustness-"+f.History.Scenario+"-")
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	problems := strings.Join(f.Problems, "\n")
	history, err := json.MarshalIndent(f.History, "", " ")
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	errs := []error{
		os.WriteFile(filepath.Join(dir, "problems.txt"), []byte(problems+"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "history.json"), history, 0o600),
		f.Verdict.Draw(filepath.Join(dir, "calls.html")),
	}
	for i, logs := range f.Logs {
		errs = append(errs, copyLogs(logs, filepath.Join(dir, fmt.Sprintf("logs-%d", i))))
	}
	return fmt.Sprintf("%s\n\nseed    %d\nreport  %s (problems.txt, history.json, calls.html, logs)\nrepeat  %s\n",
		problems, f.History.Seed, dir, f.Repeat()), errors.Join(errs...)
}

// Repeat returns the command that runs the same scenario once more, with the same seed and faults.
func (f *Failure) Repeat() string {
	command := fmt.Sprintf("make robustness RUNS=1 SCENARIO=%s SEED=%d LENGTH=%s", f.History.Scenario, f.History.Seed, f.Length)
	if len(f.Faults) > 0 {
		command += fmt.Sprintf(" FAULTS='%s'", strings.Join(f.Faults, ","))
	}
	if !f.Clocks {
		command += " CLOCKS="
	}
	return command
}

func copyLogs(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.log"))
	if err != nil || len(files) == 0 {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		errs = append(errs, err, os.WriteFile(filepath.Join(to, filepath.Base(file)), text, 0o600))
	}
	return errors.Join(errs...)
}
