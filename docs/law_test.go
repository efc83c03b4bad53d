package docs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/plan"
)

// TestLawPage holds law.md against the table in package plan. -update rewrites it.
func TestLawPage(t *testing.T) {
	want := lawPage()
	if *update {
		if err := os.WriteFile("law.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("law.md")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(have)); d != "" {
		t.Errorf("law.md is not what plan.Law says; run go test ./docs -run TestLawPage -update:\n%s", d)
	}
}

func lawPage() string {
	var b strings.Builder
	b.WriteString(`<!-- Made from plan/law.go by go test ./docs -run TestLawPage -update. Do not edit. -->

# What git decides

A source is a git repository or a directory. Its manifests say which projects there are. This page says what Cara does in each situation. Each
row has a test of the same name.

| situation | what Cara does |
|---|---|
`)
	for _, r := range plan.Law() {
		fmt.Fprintf(&b, "| %s | %s |\n", strings.ToUpper(r.Situation[:1])+r.Situation[1:], r.Behaviour)
	}
	return b.String()
}

// TestLawIsTested looks for the tests of the rows whose code is in another room than the reconciler.
func TestLawIsTested(t *testing.T) {
	for _, r := range plan.Law() {
		if !strings.Contains(r.Test, ".") {
			continue
		}
		if !testExists(t, r.Test) {
			t.Errorf("%q is tested by %s, which does not exist", r.Situation, r.Test)
		}
	}
}
