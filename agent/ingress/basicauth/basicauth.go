// Package basicauth checks names and passwords of HTTP basic authentication against bcrypt hashes. It is the step of a request
// between its route and its service, if the route has a password list.
//
// Invariants:
//
//   - Checking a password costs the machine up to a second. So the number of concurrent checks is bounded, and a pair of name and
//     password that was right is remembered for a while. Identical requests of a client share one check.
//   - A check is paid for before it is made, and costs nothing if the password is right. So wrong passwords are limited for each
//     client address and for each host, and a client cannot start many checks at once. Remembered pairs are not limited.
//   - A request with an unknown name takes as long as one with a wrong password.
//   - Everything that is remembered has a bound.
package basicauth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/singleflight"
)

const (
	// remember is how long a right pair is accepted without a check, and maxRemembered how many there are at most.
	remember, maxRemembered = 10 * time.Minute, 10_000
	// maxInput limits names and passwords, in bytes.
	maxInput = 1024
	// patience is how long a check waits for others.
	patience = 10 * time.Second
)

// Result of a check.
type Result int

// Results of a check.
const (
	// Wrong name or password.
	Wrong Result = iota
	// Accepted means that they are right.
	Accepted
	// Limited means that there were too many wrong ones from the client or for the host.
	Limited
	// Busy means that too many other checks are waiting.
	Busy
)

// List has the users of a route. It is immutable.
type List struct {
	users map[string]string // hashes by name
	decoy string            // a hash of the highest cost in the list that no password has
}

// NewList returns a list of bcrypt hashes by user name.
func NewList(users map[string]string) *List {
	cost := "04"
	for _, hash := range users {
		if parts := strings.Split(hash, "$"); len(parts) == 4 && parts[2] > cost {
			cost = parts[2]
		}
	}
	return &List{users: users, decoy: "$2a$" + cost + "$" + strings.Repeat(".", 53)}
}

// Checker checks passwords for all routes of an agent.
type Checker struct {
	now     func() time.Time
	secret  [32]byte      // makes the keys of remembered pairs useless outside of this process
	turns   chan struct{} // has an entry for each check in progress
	waiting chan struct{} // has an entry for each check that waits or is in progress
	flights singleflight.Group
	clients *budgets
	hosts   *budgets

	mu    sync.Mutex
	right map[[32]byte]time.Time // until when a pair is accepted
}

// New returns a Checker. now is the clock; nil means time.Now.
func New(now func() time.Time) *Checker {
	if now == nil {
		now = time.Now
	}
	n := max(1, runtime.GOMAXPROCS(0)/2)
	c := &Checker{
		now: now, turns: make(chan struct{}, n), waiting: make(chan struct{}, 64*n), right: map[[32]byte]time.Time{},
		clients: newBudgets(10, 6*time.Second), hosts: newBudgets(200, 300*time.Millisecond),
	}
	_, _ = rand.Read(c.secret[:]) // never fails
	return c
}

// Check checks a name and a password that a client has sent for a host.
func (c *Checker) Check(list *List, client, host, user, password string) Result {
	hash, known := list.users[user]
	if len(user) > maxInput || len(password) > maxInput {
		hash, known, password = list.decoy, false, ""
	}
	if !known {
		hash = list.decoy
	}
	pair := c.key(user, hash, password)
	if known && c.remembered(pair) {
		return Accepted
	}
	result, _, _ := c.flights.Do(string(pair[:])+client+"\n"+host, func() (any, error) {
		return c.check(pair, client, host, hash, password, known), nil
	})
	return result.(Result)
}

// check pays for a check and makes it.
func (c *Checker) check(pair [32]byte, client, host, hash, password string, known bool) Result {
	now := c.now()
	if !c.clients.take(client, now) {
		return Limited
	}
	if !c.hosts.take(host, now) {
		c.clients.give(client)
		return Limited
	}
	refund := func() {
		c.clients.give(client)
		c.hosts.give(host)
	}
	if !c.turn() {
		refund()
		return Busy
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	<-c.turns
	<-c.waiting
	if err != nil || !known {
		return Wrong
	}
	refund()
	c.store(pair, now.Add(remember))
	return Accepted
}

// turn waits until few enough checks are in progress.
func (c *Checker) turn() bool {
	select {
	case c.waiting <- struct{}{}:
	default:
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case c.turns <- struct{}{}:
		return true
	case <-timer.C:
		<-c.waiting
		return false
	}
}

// key identifies a name, its hash and a password. A changed hash makes another key.
func (c *Checker) key(user, hash, password string) (key [32]byte) {
	h := hmac.New(sha256.New, c.secret[:])
	for _, part := range []string{user, hash, password} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	h.Sum(key[:0])
	return key
}

func (c *Checker) remembered(pair [32]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.right[pair]
	return ok && c.now().Before(until)
}

func (c *Checker) store(pair [32]byte, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.right) >= maxRemembered {
		now := c.now()
		for other, end := range c.right {
			if !now.Before(end) {
				delete(c.right, other)
			}
		}
		if len(c.right) >= maxRemembered {
			clear(c.right)
		}
	}
	c.right[pair] = until
}
