package gc

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
)

// Whatever the server answers, the collector does not repeat an action in a busy loop.
func TestCollectorIsNeverBusy(t *testing.T) {
	const (
		looks = 25 // one key: a look each 30 s, or a backoff of up to 1 min
	)
	refused := api.Unavailable("no")
	for name, tt := range map[string]struct {
		err   error
		touch bool // each write changes the objects, so that the watch asks for one more
		most  int  // calls of one method in ten minutes, or in one where touch is set
	}{
		"refused":                      {err: refused, most: looks},
		"conflict":                     {err: api.Conflict("no"), most: looks},
		"not found":                    {err: api.NotFound("no"), most: looks},
		"without effect":               {most: looks},
		"without effect, but a change": {touch: true, most: fakecluster.MostChanges},
		"refused, and it has a change": {err: refused, touch: true, most: fakecluster.MostFailures},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				s := &server{Cluster: fakecluster.New(), start: now}
				objects := func(n int64) {
					touched := func(p *carav1.Project) { p.Metadata.Annotations = map[string]string{"n": strconv.FormatInt(n, 10)} }
					o := override("over", now.Add(-time.Second))
					o.Metadata.Annotations = map[string]string{"n": strconv.FormatInt(n, 10)}
					s.Put(o,
						project("expires", api.PhaseRunning, expiring(now.Add(-time.Second)), noticed, touched),
						project("soon", api.PhaseRunning, expiring(now.Add(time.Hour)), born(now.Add(-time.Hour)), touched, func(p *carav1.Project) {
							p.Status.ExpireAt = timestamppb.New(now.Add(14 * time.Minute))
						}),
						project("ended", api.PhaseTerminated, touched))
				}
				objects(0)
				var touches atomic.Int64
				conn := &fakecluster.Refusing{ClientConnInterface: s.Channel(), Answer: func(string) error {
					if tt.touch {
						objects(touches.Add(1))
					}
					return tt.err
				}}
				ctx, cancel := context.WithTimeout(t.Context(), fakecluster.BusyLength(tt.touch))
				defer cancel()
				c := New(Config{Conn: conn, Logger: slog.New(slog.DiscardHandler), TrimEvery: 1000 * time.Hour, Now: s.now})
				if err := c.Run(ctx); err != nil {
					t.Fatal(err)
				}
				conn.AtMost(t, tt.most, "DeleteProject", "RemoveProject", "NoticeExpiry", "OverrideProject", "TrimHistory")
			})
		})
	}
}
