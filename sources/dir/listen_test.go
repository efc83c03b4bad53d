package dir

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Changes that go on are reported once a second, and the last ones when none has come for a moment.
func TestListenToABurst(t *testing.T) {
	const pause = 30 * time.Millisecond // between two changes; none comes just when a report is due
	tests := map[string]struct {
		changes int
		want    []time.Duration
	}{
		"one":          {1, []time.Duration{quiet}},
		"half a burst": {20, []time.Duration{19*pause + quiet}},
		"a burst": {120, []time.Duration{
			atMost, 34*pause + atMost, 68*pause + atMost, 119*pause + quiet, // a second begins with the first change after a report
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				notify := &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}
				began, got := time.Now(), []time.Duration(nil)
				w := &watcher{root: "/root"}
				go w.listen(ctx, notify, func() { got = append(got, time.Since(began)) })
				for range tt.changes {
					notify.Events <- fsnotify.Event{Name: "/root/a.yaml", Op: fsnotify.Write}
					<-time.After(pause)
				}
				<-time.After(time.Hour)
				stop()
				synctest.Wait()
				if !slices.Equal(got, tt.want) {
					t.Errorf("reported after %v, want %v", got, tt.want)
				}
			})
		})
	}
}
