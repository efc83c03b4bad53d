package cara_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestArchitectureNamesEveryPackage holds ARCHITECTURE.md against the packages that there are: a newcomer finds each of them there.
// For rooms that are not part of the programs, the top-level folder is enough.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	g, err := load()
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	for pkg := range g {
		if isTestSupport(pkg) || strings.HasPrefix(pkg, "agent/enginetest/") || pkg == strings.TrimSuffix(module, "/") {
			continue
		}
		if slices.Contains([]string{"gen", "cmd", "docs", "e2e", "bench", "hack", "fixtures"}, top(pkg)) {
			pkg = top(pkg)
		}
		if !strings.Contains(string(text), "`"+pkg+"/`") && !strings.Contains(string(text), "`"+pkg+"`") && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	slices.Sort(missing)
	for _, pkg := range missing {
		t.Errorf("ARCHITECTURE.md does not name %s", pkg)
	}
}
