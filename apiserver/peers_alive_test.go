package apiserver

import (
	"slices"
	"strings"
	"testing"
)

// TestServersWithOneAddress: a server whose address leads to another one is taken for ended at most once, and never because the one that
// asks answers itself.
func TestServersWithOneAddress(t *testing.T) {
	all, r := newServers(t, "a", "b")
	ghost := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		if i := slices.Index(r.gone, "b says ghost"); i >= 0 {
			t.Error("b has heard itself, and says that another server has ended")
		}
		n := 0
		for _, call := range r.gone {
			if call == "a says ghost" {
				n++
			}
		}
		return n
	}
	r.add("ghost", all["b"].addr)
	eventually(t, "a takes the server for ended", func() bool { return ghost() == 1 })
	r.add("ghost", all["b"].addr) // it runs, and announces itself again
	eventually(t, "a says that the address is wrong", func() bool {
		log := all["a"].log.String()
		return strings.Contains(log, "a server runs, but another server or nothing answers at its address") && strings.Contains(log, "server=ghost address="+all["b"].addr+" answers=b")
	})
	eventually(t, "b hears itself", func() bool { return strings.Contains(all["b"].log.String(), "this server itself answers") })
	if n := ghost(); n != 1 {
		t.Errorf("a has said %d times that the server has ended", n)
	}
	r.lose("ghost")
}
