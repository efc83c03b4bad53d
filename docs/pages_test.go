package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/manifest"
)

// TestFlagTables holds the tables of operations.md against what the programs say of themselves. -update rewrites them.
func TestFlagTables(t *testing.T) {
	testneed.NotShort(t) // it builds the programs
	bin := t.TempDir()
	if err := testcluster.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	want := string(page)
	for _, program := range []string{"cara-server", "cara-agent", "caractrl"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		want = withTable(want, program, flagsOf(string(out)))
	}
	if *update {
		if err := os.WriteFile("operations.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(page), want); diff != "" {
		t.Errorf("the flags in operations.md are others than the programs' (go test ./docs -run Flag -update):\n%s", diff)
	}
}

// flagsOf makes the rows of a table out of a --help.
func flagsOf(help string) string {
	var rows strings.Builder
	_, flags, _ := strings.Cut(help, "Flags:\n")
	pattern := regexp.MustCompile(`^ +(?:-\w, )?--([a-z-]+)(?: \S+)?  +(.*?)(?: \(default "?([^")]*)"?\))?$`)
	for line := range strings.Lines(flags) {
		m := pattern.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil || m[1] == "help" || m[1] == "version" {
			continue
		}
		value := m[3]
		if value == "[]" {
			value = ""
		}
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&rows, "| `--%s` | %s | %s |\n", m[1], value, m[2])
	}
	return rows.String()
}

// withTable puts rows into the table below a program's heading.
func withTable(page, program, rows string) string {
	pattern := regexp.MustCompile(`(?s)(\n### ` + program + `\n.*?\|---\|---\|---\|\n)(?:\|[^\n]*\n)*`)
	return pattern.ReplaceAllStringFunc(page, func(section string) string {
		return pattern.FindStringSubmatch(section)[1] + rows
	})
}

// TestLinks follows every link of every page to a file, and to a heading where it names one.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range append(pages, "../README.md", "../ARCHITECTURE.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			body, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
				continue
			}
			if anchor != "" && !headings(string(body))[anchor] {
				t.Errorf("%s: link to %s: there is no such heading", name, m[1])
			}
		}
	}
}

// headings are the anchors that a page has.
func headings(page string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(page) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			out[strings.ReplaceAll(strings.ToLower(strings.TrimSpace(title)), " ", "-")] = true
		}
	}
	return out
}

// TestManifests reads every manifest of every page as apply would.
func TestManifests(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	fenced := regexp.MustCompile("(?s)\n```yaml[^\n]*\n(.*?)\n```")
	found := 0
	for _, name := range append(pages, "../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(m[1], "apiVersion:") { // a program's settings
				continue
			}
			found++
			docs, problems := manifest.Parse(name, []byte(m[1]), manifest.Limits{})
			for _, p := range problems {
				t.Errorf("%s\n%s", manifest.Format(p), m[1])
			}
			if len(docs) == 0 {
				t.Errorf("%s: no manifest in\n%s", name, m[1])
			}
		}
	}
	if found < 7 {
		t.Errorf("%d manifests found, there were 7", found)
	}
}
