package sources_test

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
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// Whatever the server answers, and whether or not the source can be read, a source has no passes in a busy loop. The stream
// of hints, which ends immediately here, is not reopened in one either.
func TestSourcesAreNeverBusy(t *testing.T) {
	const (
		looks = 60 // a poll each 30 s, or a backoff of up to 30 s, and the first tries
	)
	refused := api.Unavailable("no")
	for name, tt := range map[string]struct {
		err    error
		broken bool // the source cannot be read
		touch  bool // each write changes the source, so that the watch asks for one more
		most   int  // calls of one method in ten minutes, or in one where touch is set
	}{
		"refused":                        {err: refused, most: looks},
		"conflict":                       {err: api.Conflict("no"), most: looks},
		"without effect":                 {most: looks},
		"without effect, broken":         {broken: true, most: looks},
		"refused, broken":                {err: refused, broken: true, most: looks},
		"without effect, but a change":   {touch: true, most: fakecluster.MostChanges},
		"refused, and it has a change":   {err: refused, touch: true, most: fakecluster.MostFailures},
		"a change each time, and broken": {broken: true, touch: true, most: fakecluster.MostChanges},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				m.Write("web.yaml", sourcetest.Project("web", "web:1"))
				if tt.broken {
					m.Break()
				}
				s := sourcetest.NewServer()
				var touches atomic.Int64
				put := func() {
					n := touches.Add(1)
					src := &carav1.Source{
						ApiVersion: api.APIVersion, Kind: api.KindSource, Spec: m.Spec(),
						Metadata: &carav1.ObjectMeta{Name: sourcetest.Name, Uid: "uid-1", Generation: 1},
						Status:   &carav1.SourceStatus{RequestedToken: strconv.FormatInt(1_000_000+n, 10)},
					}
					s.Put(src)
				}
				put()
				conn := &fakecluster.Refusing{ClientConnInterface: s.Conn(), Answer: func(method string) error {
					if method == "WatchHints" {
						return nil
					}
					if tt.touch {
						put()
					}
					return tt.err
				}}
				ctx, cancel := context.WithTimeout(t.Context(), fakecluster.BusyLength(tt.touch))
				defer cancel()
				if err := sources.New(sources.Config{Conn: conn, Git: m, Dir: m, Logger: slog.New(slog.DiscardHandler)}).Run(ctx); err != nil {
					t.Fatal(err)
				}
				conn.AtMost(t, tt.most)
				calls := conn.Calls()
				if len(calls) < 2 {
					t.Error("nothing was written")
				}
				if n := calls["WatchHints"]; n == 0 || n > 60 {
					t.Errorf("hints were asked for %d times, want 1 to 60", n)
				}
			})
		})
	}
}
