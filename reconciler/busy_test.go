package reconciler

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

// Whatever the server answers, a plan without effect is not carried out again in a busy loop.
func TestReconcilerIsNeverBusy(t *testing.T) {
	const (
		backedOff = 25               // one key that fails, with a backoff of up to 1 min
		asked     = 300 + 60*20 + 10 // one key that is asked for all the time: see the budget of a loop.Queue
		failed    = 300/20 + 60 + 5  // one key that is asked for all the time and fails
	)
	refused := api.Unavailable("no")
	for name, tt := range map[string]struct {
		err   error
		touch bool // each write changes the source, so that the watch asks for one more
		most  int  // calls of one method in ten minutes, or in one where touch is set
	}{
		"refused":                      {err: refused, most: backedOff},
		"conflict":                     {err: api.Conflict("no"), most: backedOff},
		"without effect":               {most: backedOff},
		"without effect, but a change": {touch: true, most: asked},
		"refused, and it has a change": {err: refused, touch: true, most: failed},
	} {
		t.Run(name, func(t *testing.T) {
			length := 10 * time.Minute
			if tt.touch {
				length = time.Minute
			}
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.Put(newSource("platform", "s1"))
				s.publish(t, "platform", "r1", testlaw.Claim("web", "web:1"))
				var touches atomic.Int64
				conn := &fakecluster.Stubborn{ClientConnInterface: s.conn(), Answer: func(string) error {
					if tt.touch {
						src := fakecluster.Read[*carav1.Source](s.Cluster, "platform")
						src.Metadata.Annotations = map[string]string{"n": strconv.FormatInt(touches.Add(1), 10)}
						s.Put(src)
					}
					return tt.err
				}}
				ctx, cancel := context.WithTimeout(t.Context(), length)
				defer cancel()
				r := New(Config{Conn: conn, Logger: slog.New(slog.DiscardHandler), Now: s.now})
				if err := r.Run(ctx); err != nil {
					t.Fatal(err)
				}
				calls := conn.Calls()
				t.Log(calls)
				if calls["Apply"] == 0 {
					t.Error("nothing was applied")
				}
				for method, n := range calls {
					if n > tt.most {
						t.Errorf("%s was called %d times in %s, want at most %d", method, n, length, tt.most)
					}
				}
			})
		})
	}
}
