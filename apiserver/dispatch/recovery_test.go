package dispatch

import (
	"fmt"
	"testing"

	"github.com/caravanserai/cara/apiserver/rules"
)

// TestToldMessage: the event of a node names what it continues and removes, up to a limit.
func TestToldMessage(t *testing.T) {
	const begin = "the cluster was recovered from an older state: this node "
	var many []string
	for i := range maxTold + 2 {
		many = append(many, fmt.Sprintf("p%02d", i))
	}
	const twenty = "p00, p01, p02, p03, p04, p05, p06, p07, p08, p09, p10, p11, p12, p13, p14, p15, p16, p17, p18, p19"
	for name, test := range map[string]struct {
		names map[rules.Later][]string
		want  string
	}{
		"nothing": {map[rules.Later][]string{rules.LaterNothing: {"a"}}, ""},
		"each kind": {
			map[rules.Later][]string{rules.LaterHere: {"b", "a"}, rules.LaterElsewhere: {"c"}, rules.LaterUnknown: {"d", "e"}},
			begin + "continues a, b; it removes c, which another node gets; it removes d, e, which the recovered state does not have",
		},
		"too many": {
			map[rules.Later][]string{rules.LaterUnknown: many},
			begin + "removes " + twenty + " and 2 more, which the recovered state does not have",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := toldMessage(test.names); got != test.want {
				t.Errorf("got %q\nwant %q", got, test.want)
			}
		})
	}
}
