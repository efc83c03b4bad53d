package etcd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const lookEvery = 2 * time.Second // how often etcd is asked whether it answers, and whether it has space again

// health tracks what keeps etcd from answering or from taking writes.
type health struct {
	log *slog.Logger

	mu     sync.Mutex
	silent error // etcd does not answer
	full   error // etcd refuses writes because of its quota
}

func newHealth(log *slog.Logger) *health { return &health{log: log} }

// err returns the most important trouble, or nil.
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.silent != nil {
		return h.silent
	}
	return h.full
}

// answered records whether etcd answered a read.
func (h *health) answered(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil && h.silent == nil:
		h.log.Error("the store is not available", "error", err)
	case err == nil && h.silent != nil:
		h.log.Info("the store is available again")
	}
	h.silent = err
}

// failedWrite records an error of a write if it says that etcd is full.
func (h *health) failedWrite(err error) {
	if err == nil || !errors.Is(err, rpctypes.ErrNoSpace) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full == nil {
		h.log.Error("the store takes no writes", "error", err)
	}
	h.full = err
}

// wrote records a write that succeeded.
func (h *health) wrote() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full != nil {
		h.log.Info("the store takes writes again")
	}
	h.full = nil
}

func (h *health) isSilent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.silent != nil
}

func (h *health) isFull() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.full != nil
}

// watchHealth asks etcd from time to time until the store closes, and trims the history. Each server does that: what one
// has trimmed, the others need not.
func (s *Store) watchHealth() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var old mark
	for {
		select {
		case <-tick.C:
		case <-s.closed.Done():
			return
		}
		revision, err := s.look()
		if s.closed.Err() != nil {
			return
		}
		s.health.answered(err)
		if err == nil {
			old = s.trim(old, mark{revision, time.Now()})
		}
	}
}

// look reads a key, and writes it if etcd was full, and returns etcd's revision.
func (s *Store) look() (int64, error) {
	ctx, cancel := context.WithTimeout(s.closed, s.cfg.Timeout)
	defer cancel()
	answer, err := s.client.Get(ctx, s.keys.format())
	if err != nil {
		return 0, explain(s.closed, err)
	}
	if s.health.isFull() {
		there := clientv3.Compare(clientv3.CreateRevision(s.keys.format()), "=", s.first)
		if _, err := s.client.Txn(ctx).If(there).Then(clientv3.OpPut(s.keys.format(), formatVersion)).Commit(); err == nil {
			s.health.wrote()
		}
	}
	return answer.Header.Revision, nil
}

// mark is etcd's revision at a time.
type mark struct {
	revision int64
	at       time.Time
}

// trim compacts etcd's history up to a mark that is old enough, and returns the mark for the next time.
func (s *Store) trim(old, now mark) mark {
	if old.revision == 0 {
		return now
	}
	if now.at.Sub(old.at) < s.cfg.History {
		return old
	}
	if err := s.Compact(s.closed, old.revision); err != nil && s.closed.Err() == nil {
		s.cfg.Logger.Warn("etcd's history was not compacted; its database grows until somebody does", "revision", old.revision, "error", err)
	}
	return now
}
