package admission

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

func TestBodiesHaveABudget(t *testing.T) {
	b := NewBodies(1<<20, 100)
	first, err := b.reserve(t.Context(), "user/a", 50)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.reserve(t.Context(), "user/a", 1) // one caller gets at most half
	testproblem.Want(t, err, codes.ResourceExhausted, api.TitleTooMany)
	second, err := b.reserve(t.Context(), "user/b", 50)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		_, err := b.reserve(t.Context(), "user/c", 1)
		testproblem.Want(t, err, codes.Unavailable, api.TitleUnavailable)
	})
	first()
	third, err := b.reserve(t.Context(), "user/c", 50)
	if err != nil {
		t.Fatal(err)
	}
	second()
	third()
	if len(b.callers) != 0 {
		t.Errorf("%v is still counted", b.callers)
	}
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
		turns := NewTurns(3, 2)
		take := func(from netip.Prefix) <-chan error {
			done := make(chan error, 1)
			go func() { done <- turns.Take(t.Context(), from) }()
			synctest.Wait()
			return done
		}
		took := func(c <-chan error) bool { return len(c) == 1 }
		take(a)
		take(a)
		third := take(a)
		if other := take(b); took(third) || !took(other) {
			t.Errorf("an address has more than its turns (%v), or keeps out another (%v)", took(third), !took(other))
		}
		last := take(b) // three are taken
		turns.Done(b)
		synctest.Wait()
		if took(third) || !took(last) {
			t.Error("a turn that was given back went to the wrong address")
		}
		turns.Done(a)
		synctest.Wait()
		if !took(third) {
			t.Error("nobody got the turn that was given back")
		}
		turns.Done(a)
		turns.Done(a)
		turns.Done(b)
		if taken, addresses := turns.taken.Counts(); taken != 0 || addresses != 0 {
			t.Errorf("%d turns are taken, by %d addresses", taken, addresses)
		}
	})
}

func TestStrangersAreFew(t *testing.T) {
	s := NewStrangers()
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	for range maxStrangers {
		if _, ok := s.Enter(a); !ok {
			t.Fatal("refused before the bound")
		}
	}
	if _, ok := s.Enter(a); ok {
		t.Error("an address has more requests than the bound")
	}
	if here, ok := s.Enter(b); !ok || here != 1 {
		t.Errorf("another address: %d, %v", here, ok)
	}
	s.Leave(a)
	if _, ok := s.Enter(a); !ok {
		t.Error("an answered request still counts")
	}
}

func TestSameHost(t *testing.T) {
	for _, tt := range []struct {
		from, at string
		want     bool
	}{
		{"127.0.0.1:5", "127.0.0.1:8080", true},
		{"[::1]:5", "[::1]:8080", true},
		{"10.0.0.5:5", "10.0.0.5:8080", true},
		{"[::ffff:10.0.0.5]:5", "10.0.0.5:8080", true},
		{"10.0.0.6:5", "10.0.0.5:8080", false},
		{"10.0.0.6:5", "", false},
		{"@", "10.0.0.5:8080", false},
	} {
		r := &http.Request{RemoteAddr: tt.from}
		if tt.at != "" {
			local, err := net.ResolveTCPAddr("tcp", tt.at)
			if err != nil {
				t.Fatal(err)
			}
			r = r.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, local))
		}
		if got := sameHost(r); got != tt.want {
			t.Errorf("a caller from %s at %q is on the same host: %v, want %v", tt.from, tt.at, got, tt.want)
		}
	}
}

// Unauthenticated callers have a common limit, from however many addresses they come.
func TestStrangersOfManyAddressesAreFew(t *testing.T) {
	s := NewStrangers()
	address := func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), 32)
	}
	for n := range maxAllStrangers {
		if _, ok := s.Enter(address(n)); !ok {
			t.Fatalf("stranger %d is refused before the bound", n)
		}
	}
	if _, ok := s.Enter(address(maxAllStrangers)); ok {
		t.Error("there are more strangers than the bound")
	}
	s.Leave(address(0))
	if _, ok := s.Enter(address(maxAllStrangers)); !ok {
		t.Error("an answered request still counts")
	}
}

func TestRightsThatChangeDuringACall(t *testing.T) {
	was := identity.Actor{Name: "user/ci", Role: api.RoleDeployer, NamePrefixes: []string{"a"}, Hosts: []string{"*.a.example.com"}}
	for name, change := range map[string]func(*identity.Actor){
		"role":     func(a *identity.Actor) { a.Role = api.RoleViewer },
		"prefixes": func(a *identity.Actor) { a.NamePrefixes = []string{"b"} },
		"hosts":    func(a *identity.Actor) { a.Hosts = nil },
	} {
		now := was
		v := &Visit{Actor: was, Again: func() (identity.Actor, error) { return now, nil }}
		if err := v.StillValid(); err != nil {
			t.Error(err)
		}
		if change(&now); v.StillValid() == nil {
			t.Errorf("%s: still valid", name)
		}
	}
}
