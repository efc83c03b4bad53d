package testnet

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestPackets: what a machine ignores does not arrive, what others send does, and everything arrives after Heal and Plug.
func TestPackets(t *testing.T) {
	testneed.NotShort(t)
	n := New(t, 3)
	a, b, c := n.Machines[0], n.Machines[1], n.Machines[2]
	reach := func(from, to *Machine, want bool) {
		t.Helper()
		limit := "1" // a closed port answers at once
		if want {
			limit = "60"
		}
		argv := append(from.Enter(), "timeout", limit, "bash", "-c", "exec 3<>/dev/tcp/"+to.IP+"/9")
		out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
		if refused := strings.Contains(string(out), "refused"); refused != want {
			t.Errorf("%s reaches %s: %v (%v: %s), want %v", from.IP, to.IP, refused, err, out, want)
		}
	}
	reach(a, b, true)
	must(t, b.Ignore(t.Context(), a))
	reach(a, b, false)
	reach(c, b, true)
	reach(a, c, true)
	must(t, b.Heal(t.Context()))
	reach(a, b, true)
	must(t, b.Lose(t.Context(), 1))
	reach(a, b, false)
	reach(b, a, false)
	must(t, b.Heal(t.Context()))
	must(t, b.Unplug(t.Context()))
	reach(a, b, false)
	must(t, b.Plug(t.Context()))
	reach(a, b, true)

	if other := New(t, 1); other.Range == n.Range {
		t.Errorf("two networks have the range %s", n.Range)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
