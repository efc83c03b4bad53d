package text

import (
	"testing"
	"unicode/utf8"
)

func TestClip(t *testing.T) {
	tests := []struct {
		give string
		most int
		want string
	}{
		{"short", 5, "short"},
		{"longer", 5, "lo..."},
		{"größer als das", 6, "gr..."}, // not half of the ö
		{"", 0, ""},
		{"longer", 2, "..."},
	}
	for _, tt := range tests {
		if got := Clip(tt.give, tt.most); got != tt.want || !utf8.ValidString(got) {
			t.Errorf("Clip(%q, %d) = %q, want %q", tt.give, tt.most, got, tt.want)
		}
	}
}

func TestLine(t *testing.T) {
	for give, want := range map[string]string{
		"a\nb\tc":                     "a b c",
		"\x1b[31mred\x1b[0m":          "red",
		"\x1b]8;;http://x\x07link":    "link",
		"to the \u202eleft\u2066":     "to the left",
		"bell\a, delete\x7f, nul\x00": "bell, delete, nul",
	} {
		if got := Line(give); got != want {
			t.Errorf("Line(%q) = %q, want %q", give, got, want)
		}
	}
	if got := Line("half \xc3"); !utf8.ValidString(got) {
		t.Errorf("Line keeps what is not UTF-8: %q", got)
	}
}

func TestScale(t *testing.T) {
	for bytes, want := range map[float64]struct {
		value  float64
		prefix string
	}{
		0: {0, ""}, 1023: {1023, ""}, 1024: {1, "Ki"}, 1536: {1.5, "Ki"}, 1 << 20: {1, "Mi"}, 3 << 30: {3, "Gi"}, 1 << 40: {1, "Ti"}, 1 << 52: {4096, "Ti"},
	} {
		if value, prefix := Scale(bytes); value != want.value || prefix != want.prefix {
			t.Errorf("Scale(%v) = %v %q, want %v %q", bytes, value, prefix, want.value, want.prefix)
		}
	}
}
