package manifest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

const head = "apiVersion: caravanserai/v1\nkind: Project\nmetadata: {name: bomb}\n"

// bombs are files that cost much more than their size without limits.
func bombs() map[string]string {
	return map[string]string{
		"two MiB":          head + "# " + strings.Repeat("x", 2<<20),
		"200,000 keys":     head + "spec:\n" + keys(200_000, "  "),
		"keys in one MiB":  head + "spec:\n" + keys(85_000, "  "),
		"same key":         head + "spec:\n" + strings.Repeat("  a: 1\n", 30_000),
		"same merged key":  head + "spec:\n  <<: &a {b: 1}\n" + strings.Repeat("  <<: *a\n", 30_000),
		"alias bomb":       head + "spec:\n  services:\n" + aliases(),
		"string bomb":      head + "spec:\n  services:\n  - name: &a " + strings.Repeat("x", 500_000) + "\n    args: [" + strings.Repeat("*a,", 900) + "]\n",
		"alias flood":      head + "spec:\n  services:\n  - name: &a x\n    args: [" + strings.Repeat("*a,", 50_000) + "]\n",
		"merge bomb":       head + merges(),
		"merge list bomb":  head + "spec:\n  x: &x {" + strings.Repeat("a: 1, ", 100) + "}\n  <<: [" + strings.Repeat("*x,", 900) + "]\n",
		"flow depth":       head + "spec: " + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		"open depth":       head + "spec: " + strings.Repeat("{a: ", 10_000),
		"status depth":     head + "spec: {services: [{name: a, image: a}]}\nstatus: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"block depth":      head + "spec:\n" + deepBlock(1300),
		"documents":        strings.Repeat("---\na: 1\n", 60_000),
		"1,001 documents":  strings.Repeat("---\n"+head+"spec: {services: [{name: a, image: a}]}\n", 1001),
		"services":         head + "spec:\n  services:\n" + strings.Repeat("  - {}\n", 30_000),
		"unknown keys":     head + "spec:\n  services:\n" + strings.Repeat("  - {abcdefghijklmnopqrstuvwxyz: 1}\n", 90),
		"directives":       tags() + "---\n" + head,
		"comments":         head + strings.Repeat("#\n", 500_000),
		"flow scalars":     head + "spec: [" + strings.Repeat("a,", 500_000) + "]",
		"anchors":          head + "spec:\n" + numbered("  - &a%d x\n", 30_000),
		"long key":         head + strings.Repeat("k", 1_000_000) + ": 1\n",
		"quotes":           head + "spec: " + strings.Repeat("'", 1_000_000),
		"control":          head + "spec: \x1b[31m",
		"half a rune":      head + "spec: \xe2\x82",
		"newline on alias": head + "spec: *\n",
	}
}

func keys(n int, indent string) string { return numbered(indent+"k%d: 1\n", n) }

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func tags() string { return numbered("%%TAG !a%d! x\n", 60_000) }

func deepBlock(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i+1) + "a:\n")
	}
	return b.String()
}

// aliases is the billion laughs, made of services so that every level is of the right type.
func aliases() string {
	env := "{name: a, value: b}"
	return "  - &s\n    name: a\n    image: a\n    env: [&e " + env + strings.Repeat(", *e", 450) + "]\n" + strings.Repeat("  - *s\n", 99)
}

func merges() string {
	var b strings.Builder
	b.WriteString("spec:\n  services:\n  - &m0 {name: a, image: b}\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&b, "  - &m%d {<<: [*m%d, *m%d, *m%d]}\n", i, i-1, i-1, i-1)
	}
	return b.String()
}

// TestBombs checks the result of a bomb. Its cost is in the log and the benchmarks, since tests do not check times.
func TestBombs(t *testing.T) {
	for name, text := range bombs() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, problems := manifest.Parse("bomb.yaml", []byte(text), manifest.Limits{})
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if name != "comments" && len(problems) == 0 {
				t.Error("no problem found")
			}
			if len(problems) > 100 {
				t.Errorf("%d problems", len(problems))
			}
			for _, p := range problems {
				inside(t, text, p)
			}
			first := ""
			if len(problems) > 0 {
				first = manifest.Format(problems[len(problems)-1])
			}
			t.Logf("%8d bytes %10v %5d MB %3d problems; %.120s", len(text), took.Round(10*time.Microsecond),
				(after.TotalAlloc-before.TotalAlloc)>>20, len(problems), first)
		})
	}
}

// inside checks that a problem lies in its file and is fit to be shown.
func inside(t *testing.T, text string, p *carav1.FileProblem) {
	t.Helper()
	lines := strings.Count(text, "\n") + 1
	if p.GetLine() < 0 || int(p.GetLine()) > lines || p.GetColumn() < 0 {
		t.Errorf("%d:%d lies outside of a file with %d lines: %s", p.GetLine(), p.GetColumn(), lines, p.GetMessage())
	}
	if p.GetMessage() == "" || len(p.GetMessage()) > 2048 || len(p.GetPath()) > 1024 {
		t.Errorf("message of %d bytes, path of %d bytes", len(p.GetMessage()), len(p.GetPath()))
	}
	for _, r := range p.GetMessage() + p.GetPath() {
		if r < ' ' || r == 0x7f {
			t.Errorf("control character %#x in %q", r, p.GetMessage())
		}
	}
}

func TestLimitsNameThemselves(t *testing.T) {
	cases := map[string]string{
		"two MiB":         "at most 1048576 are allowed",
		"200,000 keys":    "at most 1048576 are allowed",
		"keys in one MiB": "unknown field",
		"alias bomb":      "nodes once its aliases are followed",
		"string bomb":     "bytes of values once its aliases are followed",
		"alias flood":     "more than 1000 aliases",
		"flow depth":      "nested more than 64 deep",
		"status depth":    "nested more than 64 deep",
		"block depth":     "nested more than 64 deep",
		"1,001 documents": "more than 1000 documents",
		"services":        "has 30000 entries, at most 100 are allowed",
		"directives":      "begin with %",
		"flow scalars":    "at most 200000 are allowed",
		"control":         "it has a control character",
		"half a rune":     "not UTF-8",
	}
	all := bombs()
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			_, problems := manifest.Parse("bomb.yaml", []byte(all[name]), manifest.Limits{})
			for _, p := range problems {
				if strings.Contains(p.GetMessage(), want) {
					return
				}
			}
			t.Errorf("no problem says %q: %v", want, problems)
		})
	}
}

// TestKeysAreLinear lifts the limits: even then a map of 200,000 keys is walked once.
func TestKeysAreLinear(t *testing.T) {
	text := "apiVersion: caravanserai/v1\nkind: Node\nmetadata:\n  name: a\n  annotations:\n" + numbered("    k%d: v\n", 200_000) + "    k7: v\n"
	start := time.Now()
	_, problems := manifest.Parse("keys.yaml", []byte(text), manifest.Limits{Bytes: 8 << 20, Nodes: 2_000_000})
	t.Logf("%d bytes in %v", len(text), time.Since(start))
	if len(problems) != 1 || !strings.Contains(problems[0].GetMessage(), `duplicate key "k7"`) {
		t.Errorf("got %v", problems)
	}
}

func TestJSONBombs(t *testing.T) {
	cases := map[string]struct{ text, want string }{
		"depth":      {`{"a":` + strings.Repeat("[", 10_000), "nested more than 64 deep"},
		"elements":   {`[` + strings.Repeat("1,", 400_000) + `1]`, "at most 200000 are allowed"},
		"too long":   {`"` + strings.Repeat("x", 2<<20) + `"`, "at most 1048576 are allowed"},
		"documents":  {strings.Repeat(`{"a":1}`+"\n", 5000), "problems"},
		"garbage":    {`}`, "not JSON"},
		"trailing":   {`{} x`, "not JSON"},
		"number":     {`12`, "must be a map"},
		"open":       {`{"a"`, "ends in the middle"},
		"bad escape": {`{"\x":1}`, "not JSON"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, problems := manifest.Parse("bomb.json", []byte(tc.text), manifest.Limits{})
			var all strings.Builder
			for _, p := range problems {
				inside(t, tc.text, p)
				all.WriteString(manifest.Format(p) + "\n")
			}
			if !strings.Contains(all.String(), tc.want) {
				t.Errorf("want %q in:\n%s", tc.want, all.String())
			}
		})
	}
}
