package reconciler

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

// Whatever the server answers, a plan without effect is not repeated in a busy loop.
func TestReconcilerIsNeverBusy(t *testing.T) {
	const (
		backedOff = 25 // one key that fails, with a backoff of up to 1 min
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
		"without effect, but a change": {touch: true, most: fakecluster.MostChanges},
		"refused, and it has a change": {err: refused, touch: true, most: fakecluster.MostFailures},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.Put(newSource("platform", "s1"))
				s.publish(t, "platform", "r1", testlaw.Claim("web", "web:1"))
				var touches atomic.Int64
				conn := &fakecluster.Refusing{ClientConnInterface: s.conn(), Answer: func(string) error {
					if tt.touch {
						src := fakecluster.Read[*carav1.Source](s.Cluster, "platform")
						src.Metadata.Annotations = map[string]string{"n": strconv.FormatInt(touches.Add(1), 10)}
						s.Put(src)
					}
					return tt.err
				}}
				ctx, cancel := context.WithTimeout(t.Context(), fakecluster.BusyLength(tt.touch))
				defer cancel()
				r := New(Config{Conn: conn, Logger: slog.New(slog.DiscardHandler), Now: s.now})
				if err := r.Run(ctx); err != nil {
					t.Fatal(err)
				}
				conn.AtMost(t, tt.most, "Apply")
			})
		})
	}
}
