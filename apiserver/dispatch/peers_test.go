package dispatch

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/apiserver/guard"
)

// TestPeersAreToldTogether: the first change of a node's certificates wakes a session at once. While many change, they wake it
// once a second, and the last one is told, too.
func TestPeersAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRouteFeed(&Dispatcher{Guard: guard.Guard{Logger: slog.New(slog.DiscardHandler)}}, &Session{})
		f.begin()
		<-f.noted
		woken, told := 0, map[string]struct{}{}
		take := func() {
			synctest.Wait()
			select {
			case <-f.noted:
				woken++
				for node := range f.nodes {
					told[node] = struct{}{}
				}
				f.changes = newChanges()
			default:
			}
		}
		f.notePeer("first")
		take()
		if woken != 1 || len(told) != 1 {
			t.Fatalf("after the first change the session was woken %d times and told of %d nodes", woken, len(told))
		}
		for i := range 1000 { // in 10 s
			f.notePeer(fmt.Sprintf("n%d", i))
			take()
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(peersPause)
		take()
		if woken < 10 || woken > 13 || len(told) != 1001 {
			t.Errorf("for 1,000 changes in 10 s the session was woken %d times and told of %d nodes", woken, len(told))
		}
		<-time.After(peersPause)
		f.notePeer("later")
		if take(); len(told) != 1002 {
			t.Error("a change after a pause was not told at once")
		}
	})
}
