package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/caravanserai/cara/internal/text"
)

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
