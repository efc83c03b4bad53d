package git

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// shared is what sources with the same address and credentials share: a connection and the result of a probe. Only one probe
// runs at a time. Callers that waited for it may use its result, if it began late enough for their maxAge.
type shared struct {
	key    string
	remote remote
	users  int // guarded by Git.mu
	now    func() time.Time

	turn  chan struct{}   // held during a probe; guards what follows
	asked map[string]bool // every prefix that a source ever requested; each probe requests all of them
	last  answer
}

// answer is the result of a probe.
type answer struct {
	listing  *listing
	err      error
	began    time.Time
	prefixes []string
}

// list returns a listing that covers the prefixes and is not older than maxAge at the time of the call.
func (s *shared) list(ctx context.Context, prefixes []string, maxAge time.Duration) (*listing, error) {
	oldest := s.now().Add(-maxAge)
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if a := s.last; a.covers(prefixes) && !a.began.Before(oldest) && !a.began.IsZero() {
		return a.listing, a.err
	}
	a := answer{began: s.now(), prefixes: s.ask(prefixes)}
	a.listing, a.err = s.remote.list(ctx, a.prefixes)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // the end of this caller's context must not affect the others
	}
	s.last = a
	return a.listing, a.err
}

// ask adds prefixes to those of every later probe. Beyond 50 prefixes, the whole listing is smaller than the request.
func (s *shared) ask(prefixes []string) []string {
	for _, p := range prefixes {
		s.asked[p] = true
	}
	if len(s.asked) > 50 {
		return []string{"HEAD", "refs/"}
	}
	return slices.Sorted(maps.Keys(s.asked))
}

func (a answer) covers(prefixes []string) bool {
	for _, want := range prefixes {
		if !slices.ContainsFunc(a.prefixes, func(p string) bool { return strings.HasPrefix(want, p) }) {
			return false
		}
	}
	return true
}
