package basicauth

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func listOf(t *testing.T, passwords map[string]string) *List {
	t.Helper()
	users := map[string]string{}
	for user, password := range passwords {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users[user] = strings.Replace(string(hash), "$2a$", "$2y$", 1) // as htpasswd writes it
	}
	return NewList(users)
}

// clock is a clock that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestCheck(t *testing.T) {
	list := listOf(t, map[string]string{"ann": "right", "": "empty"})
	c := New(nil)
	for _, tt := range []struct {
		user, password string
		want           Result
	}{
		{"ann", "right", Accepted},
		{"ann", "right", Accepted}, // remembered
		{"ann", "wrong", Wrong},
		{"ann", "", Wrong},
		{"Ann", "right", Wrong},
		{"bob", "right", Wrong},
		{"bob", "", Wrong},
		{"ann", strings.Repeat("x", maxInput+1), Wrong},
	} {
		if got := c.Check(list, "192.0.2.1/32", "a.test", tt.user, tt.password); got != tt.want {
			t.Errorf("%q %q: %d, want %d", tt.user, tt.password, got, tt.want)
		}
	}
	if got := c.Check(listOf(t, map[string]string{"ann": "new"}), "192.0.2.1/32", "a.test", "ann", "right"); got != Wrong {
		t.Errorf("an old password is still accepted: %d", got)
	}
	if got := c.Check(NewList(nil), "192.0.2.1/32", "a.test", "ann", "right"); got != Wrong {
		t.Errorf("a user who was removed is still accepted: %d", got)
	}
}

// TestTheDecoyCostsAsMuch: a name that does not exist must not be answered faster.
func TestTheDecoyCostsAsMuch(t *testing.T) {
	list := NewList(map[string]string{"a": "$2y$05$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", "b": "$2y$12$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"})
	if cost, err := bcrypt.Cost([]byte(list.decoy)); err != nil || cost != 12 {
		t.Errorf("cost %d: %v", cost, err)
	}
	if err := bcrypt.CompareHashAndPassword([]byte(NewList(nil).decoy), nil); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("the decoy does not cost a check: %v", err)
	}
}

// TestWrongPasswordsAreLimited for a client, which others do not feel, and for a host. Remembered pairs are never limited.
func TestWrongPasswordsAreLimited(t *testing.T) {
	list := listOf(t, map[string]string{"ann": "right", "eve": "right"})
	at := &clock{at: time.Unix(1_700_000_000, 0)}
	c := New(at.now)
	check := func(client, user, password string) Result { return c.Check(list, client, "a.test", user, password) }
	if got := check("one", "ann", "right"); got != Accepted {
		t.Fatalf("got %d", got)
	}
	wrong := func(client string) (n int) {
		for i := 0; check(client, "ann", fmt.Sprint("wrong", i)) == Wrong; i++ {
			n++
		}
		return n
	}
	if n := wrong("one"); n != 10 {
		t.Errorf("%d wrong passwords before the limit, want 10", n)
	}
	if got := check("one", "eve", "right"); got != Limited {
		t.Errorf("a right password during the limit: %d", got)
	}
	if got := check("one", "ann", "right"); got != Accepted {
		t.Errorf("a remembered password during the limit: %d", got)
	}
	if got := check("two", "eve", "right"); got != Accepted {
		t.Errorf("another client: %d", got)
	}
	at.move(6 * time.Second)
	if n := wrong("one"); n != 1 {
		t.Errorf("%d wrong passwords after 6 s, want 1", n)
	}
	total := 11
	for i := 0; i < 100 && total < 1000; i++ {
		n := wrong(fmt.Sprint("client", i))
		if total += n; n == 0 {
			break
		}
	}
	if total < 200 || total > 230 {
		t.Errorf("%d wrong passwords for the host before the limit, want about 200", total)
	}
	at.move(remember)
	if got := check("one", "ann", "right"); got != Accepted {
		t.Errorf("after a while: %d", got)
	}
}

// TestIdenticalRequestsShareACheck: a page with many parts does not reach the limit of its client.
func TestIdenticalRequestsShareACheck(t *testing.T) {
	list := listOf(t, map[string]string{"ann": "right"})
	c := New(nil)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got := c.Check(list, "one", "a.test", "ann", "right"); got != Accepted {
				t.Errorf("got %d", got)
			}
		})
	}
	all.Wait()
}

func TestBudgetsAreBounded(t *testing.T) {
	b := newBudgets(2, time.Second)
	now := time.Unix(1_700_000_000, 0)
	for i := range maxBudgets + 100 {
		b.take(fmt.Sprint(i), now)
	}
	if len(b.all) > maxBudgets+1 {
		t.Errorf("%d budgets", len(b.all))
	}
	if b.take("new", now) {
		t.Error("names beyond the bound share no budget")
	}
	if !b.take("newer", now.Add(time.Minute)) || len(b.all) > 2 {
		t.Errorf("%d budgets are kept that are full again", len(b.all))
	}
}
