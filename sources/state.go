package sources

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	defaultInterval = 30 * time.Second
	liveInterval    = 15 * time.Second       // full rescan of a source that is watched
	secondLook      = 300 * time.Millisecond // before an error or removal in a live source is believed
	patience        = 2 * time.Second        // with a live source that does not come to rest
	firstRetry      = time.Second
)

// state is what is remembered of one source between passes. All of it can be lost: a restart reads again what it
// cannot know.
type state struct {
	hints hints // something may have changed

	uid        string
	generation int32
	secret     string // hash of the credentials that the driver has
	driver     Driver
	stopWatch  context.CancelFunc
	memory     memory // nil until it was filled

	due       time.Time // of the next poll
	barred    time.Time // the other side asked not to be hinted at before
	token     string    // the last request that was answered
	failures  int
	failed    api.Reason // reason that was last told
	published int64      // revision of the last write; older pictures of the cluster are not worked on

	doubt      string    // revision that is looked at twice
	doubtAt    time.Time // when it was first seen
	doubtSince time.Time // when doubt began, of whatever revision
	moves      int       // times in a row that the source changed while it was read
}

// close releases the driver.
func (st *state) close() {
	if st.stopWatch != nil {
		st.stopWatch()
		st.stopWatch = nil
	}
	if st.driver != nil {
		st.driver.Close()
		st.driver = nil
	}
}

// asked is the newest request that waits for an answer, or empty. Tokens sort in the order of the requests.
func (st *state) asked(src *carav1.Source) string {
	status := src.GetStatus()
	token := status.GetRequestedToken()
	if token <= max(st.token, status.GetHandledToken(), status.GetSnapshot().GetToken()) {
		return ""
	}
	return token
}

// interval between polls of a source.
func interval(src *carav1.Source, d Driver) time.Duration {
	every, err := api.ParseDuration(src.GetSpec().GetInterval(), defaultInterval)
	if err != nil || every < time.Second {
		every = defaultInterval // the server refuses such a spec
	}
	if _, live := d.(Live); live {
		every = min(every, liveInterval)
	}
	return every
}

// backoff is how long to wait after failures in a row: doubling from a second up to the interval, or what the other
// side asked for. What a person must mend is looked at once per interval.
func backoff(e *Error, failures int, every time.Duration) time.Duration {
	wait := every
	if !e.Human {
		wait = min(every, firstRetry<<min(failures-1, 10))
	}
	return max(wait, e.RetryAfter)
}

// jitter spreads polls by 10 %.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
