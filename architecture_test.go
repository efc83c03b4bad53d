package cara_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestArchitectureNamesEveryRoom holds ARCHITECTURE.md against the packages that there are: a newcomer finds each top-level
// folder and each room of internal/ there.
func TestArchitectureNamesEveryRoom(t *testing.T) {
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
		if isTestSupport(pkg) || pkg == strings.TrimSuffix(module, "/") {
			continue
		}
		room := top(pkg)
		if room == "internal" {
			room = strings.Join(strings.Split(pkg, "/")[:2], "/")
		}
		if !strings.Contains(string(text), "`"+room+"/") && !strings.Contains(string(text), "`"+room+"`") && !slices.Contains(missing, room) {
			missing = append(missing, room)
		}
	}
	slices.Sort(missing)
	for _, room := range missing {
		t.Errorf("ARCHITECTURE.md does not name %s", room)
	}
}
