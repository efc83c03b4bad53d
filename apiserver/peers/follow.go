package peers

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// anotherError means that a server at an address is not the one that was expected.
type anotherError struct {
	id   string // of the server that answers
	self bool   // it is this one
}

func (e anotherError) Error() string {
	if e.self {
		return "this server itself answers at the address of the other one: give each server its own --advertise"
	}
	return "server " + e.id + " answers at the address of the other one"
}

// follow hears the news of another server until ctx ends.
func (p *Peers) follow(ctx context.Context, other *peer) {
	for connected := false; ctx.Err() == nil; {
		err := p.hear(ctx, other, &connected)
		other.synced.Store(false)
		if ctx.Err() != nil {
			return
		}
		p.DB.Logger.Debug("the news of another server ended", "server", other.id, "error", err)
		if other.silence.begin(time.Now()) {
			p.DB.Logger.Warn("another server sends no news: logs and shells of its agents fail here, and what its agents report is not seen; "+
				"its address must be reachable from this server, and no other server may have it: see --advertise",
				"server", other.id, "address", other.address, "error", err)
		}
		again := followAgain
		if answers := (anotherError{}); errors.As(err, &answers) && !answers.self || connected && refused(ctx, other.address) {
			again = p.ended(ctx, other, answers.id)
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

// ended frees what a server holds that seems to have ended, and returns when to look again. If that server is announced again later, it
// runs: its address is wrong, so it is left alone from then on. answers is the server that has the address now; "" if none answers.
func (p *Peers) ended(ctx context.Context, other *peer, answers string) time.Duration {
	if other.id == p.Directory.Self() {
		return followAgain
	}
	switch p.seemed.note(other.id) {
	case 1:
	case 2:
		p.DB.Logger.Error("a server runs, but another server or nothing answers at its address: two servers have this address, or a firewall refuses it: check --advertise",
			"server", other.id, "address", other.address, "answers", answers)
		return followAgain
	default:
		return followAgain
	}
	p.DB.Logger.Warn("another server has ended", "server", other.id, "address", other.address, "answers", answers)
	bounded, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	if err := p.Directory.FreeServer(bounded, other.id); err != nil && ctx.Err() == nil {
		p.seemed.forget(other.id) // nothing was freed
		p.DB.Logger.Warn("what a server that has ended was doing goes on when its leases end", "server", other.id, "address", other.address, "error", err)
		return followAgain
	}
	return vanishes
}

// vanishes is more than the time until a server that was declared ended is no longer in the directory. Then its follow ends.
const vanishes = 5 * time.Second

// seemedEnded counts how often each server seemed to have ended. It has one entry for each start of a server that was killed.
type seemedEnded struct {
	mu    sync.Mutex
	times map[string]int
}

// note counts one more time, and returns how often the server has seemed to have ended.
func (t *seemedEnded) note(id string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.times == nil {
		t.times = map[string]int{}
	}
	t.times[id]++
	return t.times[id]
}

func (t *seemedEnded) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.times, id)
}

// silence is the time in which a server sends no news.
type silence struct {
	since  time.Time // zero while the server sends news
	logged bool
}

// begin notes that the server sends no news, and reports whether the caller should log it now.
func (s *silence) begin(now time.Time) bool {
	if s.since.IsZero() {
		s.since = now
	}
	if s.logged || now.Sub(s.since) < newsMissing {
		return false
	}
	s.logged = true
	return true
}

// end notes that the server sends news again, and reports whether its silence was logged.
func (s *silence) end() bool {
	logged := s.logged
	*s = silence{}
	return logged
}

// awaitReady waits until there is a connection, but no longer than limit. The next call on it then says why there is none.
func awaitReady(ctx context.Context, conn *grpc.ClientConn, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn.Connect()
	s := conn.GetState()
	for s != connectivity.Ready && conn.WaitForStateChange(ctx, s) {
		s = conn.GetState()
	}
}

// refused reports whether nothing listens at an address.
func refused(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close() // only whether it opens matters
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
