package sources

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	liveInterval = 15 * time.Second       // full rescan of a watched source
	secondLook   = 300 * time.Millisecond // before an error or removal in a live source takes effect
	patience     = 2 * time.Second        // with a live source that keeps changing
	firstRetry   = time.Second
)

// state is what is remembered about one source between passes. All of it may be lost: after a restart, the source is read
// again.
type state struct {
	hints hints // something may have changed

	uid        string
	generation int32
	secret     string // hash of the credentials that the driver has
	driver     Driver
	stopWatch  context.CancelFunc
	memory     memory             // nil until it is filled
	rules      string             // parsingRules of what is in memory
	settled    *settled           // what the next difference adds to; nil if the next tree must be read whole
	contents   map[string]content // of files that manifests use, by Hash
	keys       string             // hash of the keys that decrypted the published files; empty if they must be published again

	due       time.Time // of the next poll
	barred    time.Time // the server asked not to be contacted before
	token     string    // the last request that was answered
	failures  int
	failed    api.Reason // the reason that was last logged
	published int64      // revision of the last write; passes wait until the mirror shows it

	doubt      string    // revision that needs a second look
	doubtAt    time.Time // when it was first seen
	doubtSince time.Time // start of the doubt, whatever the revision
	moves      int       // how often in a row the source changed while it was read
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

// asked returns the newest unanswered request, or an empty string. Tokens sort in the order of the requests.
func (st *state) asked(src *carav1.Source) string {
	status := src.GetStatus()
	token := status.GetRequestedToken()
	if token <= max(st.token, status.GetHandledToken(), status.GetSnapshot().GetToken()) {
		return ""
	}
	return token
}

// interval returns the time between polls of a source.
func interval(src *carav1.Source, d Driver) time.Duration {
	every, err := syntax.ParseDuration(src.GetSpec().GetInterval(), api.DefaultSourceInterval)
	if err != nil || every < time.Second {
		every = api.DefaultSourceInterval // the server rejects such a spec
	}
	if _, live := d.(Live); live {
		every = min(every, liveInterval)
	}
	return every
}

// backoff returns the wait after a number of consecutive failures: doubling from a second up to the interval, but at least
// RetryAfter. An error that a person must fix is retried once per interval.
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
