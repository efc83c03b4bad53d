package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/internal/text"
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

const (
	membersEvery  = 20 * time.Second
	memberTimeout = 3 * time.Second
	nearQuota     = 80 // per cent of the quota from which a warning is logged
)

// Member is what a member of etcd says about its database.
type Member struct {
	Endpoint string
	Up       bool // it has answered; the other fields are zero if not
	Leader   bool
	Size     int64 // bytes of the database file
	InUse    int64 // bytes of it that have data; a defragmentation frees the others
	Quota    int64 // bytes at which etcd takes no more writes; 0 if this version of etcd does not report it
	Alarms   int   // number of problems that it reports, such as a full database
}

// full reports whether the database nears its quota. Space that has no data counts: etcd does not give it back by itself.
func (m Member) full() bool { return m.Quota > 0 && m.Size > m.Quota/100*nearQuota }

// String tells the sizes for a person.
func (m Member) String() string {
	sizes := fmt.Sprintf("%s has a database of %s, %s of it in use", m.Endpoint, text.Size(m.Size), text.Size(m.InUse))
	if m.Quota > 0 {
		sizes += ", quota " + text.Size(m.Quota)
	}
	return sizes
}

// members keeps what the members have said.
type members struct {
	mu     sync.Mutex
	all    []Member
	warned bool
}

// Members returns what the members of etcd have said last, in the order of the endpoints. It is empty until they were asked.
func (s *Store) Members() []Member {
	s.members.mu.Lock()
	defer s.members.mu.Unlock()
	return s.members.all
}

// watchMembers asks the members from time to time until the store closes.
func (s *Store) watchMembers() {
	for wait := time.Duration(0); s.pause(s.closed, wait) == nil; {
		s.members.know(s.askMembers(), s.cfg.Logger)
		wait = membersEvery
	}
}

// askMembers asks all members at the same time.
func (c *connection) askMembers() []Member {
	ctx, cancel := context.WithTimeout(c.closed, memberTimeout)
	defer cancel()
	all := make([]Member, len(c.cfg.Endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range c.cfg.Endpoints {
		all[i].Endpoint = endpoint
		asked.Go(func() {
			said, err := c.client.Status(ctx, endpoint)
			if err == nil {
				all[i] = Member{
					Endpoint: endpoint, Up: true, Leader: said.Leader != 0 && said.Leader == said.Header.GetMemberId(),
					Size: said.DbSize, InUse: said.DbSizeInUse, Quota: said.DbSizeQuota, Alarms: len(said.Errors),
				}
			}
		})
	}
	asked.Wait()
	return all
}

// know keeps an answer, and logs a warning when a database begins to near its quota.
func (m *members) know(all []Member, log *slog.Logger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = all
	near := ""
	for _, one := range all {
		if one.full() {
			near = one.String()
		}
	}
	if near != "" && !m.warned {
		log.Warn("etcd's database nears its quota: defragment its members, or raise their --quota-backend-bytes", "member", near)
	}
	m.warned = near != ""
}

// Err returns what keeps the store from working, or nil. If etcd is full, the text has the sizes of its databases.
func (s *Store) Err() error {
	err := s.connection.Err()
	if err == nil || !s.health.isFull() {
		return err
	}
	var sizes []string
	for _, m := range s.Members() {
		if m.Up {
			sizes = append(sizes, m.String())
		}
	}
	if len(sizes) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(sizes, "; "))
}
