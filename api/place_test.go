package api

import "testing"

func TestPlace(t *testing.T) {
	for want, give := range map[string]struct{ line, column int32 }{"a.yaml": {0, 7}, "a.yaml:3": {3, 0}, "a.yaml:3:7": {3, 7}} {
		if got := Place("a.yaml", give.line, give.column); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
