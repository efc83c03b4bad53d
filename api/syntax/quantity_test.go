package syntax_test

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api/syntax"
)

func TestQuantities(t *testing.T) {
	for q, want := range map[string]int64{"": 0, "1": 1000, "500m": 500, "0.25": 250, "1k": 1_000_000, "1u": 1} {
		if got, err := syntax.MilliCPU(q); err != nil || got != want {
			t.Errorf("cpu %q: %d %v, want %d", q, got, err, want)
		}
	}
	for q, want := range map[string]int64{"": 0, "128Mi": 128 << 20, "1G": 1_000_000_000, "1e3": 1000, "1.5Gi": 3 << 29} {
		if got, err := syntax.Bytes(q); err != nil || got != want {
			t.Errorf("memory %q: %d %v, want %d", q, got, err, want)
		}
	}
	for _, q := range []string{"-1", "x", "1MB", " 1", "1e999999999", strings.Repeat("9", 100), "99999999999999999999", "1 "} {
		if got, err := syntax.Bytes(q); err == nil {
			t.Errorf("memory %q is %d", q, got)
		}
		if got, err := syntax.MilliCPU(q); err == nil {
			t.Errorf("cpu %q is %d", q, got)
		}
	}
}
