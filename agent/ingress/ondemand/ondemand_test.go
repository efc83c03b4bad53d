package ondemand

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAnswers: requests of one host share a question, and the answers of the server are used until it is away.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Limits{}, func() []string { return nil }, nil)
		find := func(host, client string) Verb { return h.Find(t.Context(), host, client) }
		if got := find("a.test", "c"); got != Away {
			t.Errorf("before the first connection: %s", got)
		}
		h.Connected(true)
		var all sync.WaitGroup
		results := make(chan Verb, 10)
		for range 10 {
			all.Go(func() { results <- find("a.test", "c") })
		}
		all.Go(func() {
			if got := find("gone.test", "c"); got != Unknown {
				t.Errorf("a host that no project claims: %s", got)
			}
		})
		synctest.Wait()
		<-h.News()
		if ask, forget := h.Take(); len(ask) != 2 || len(forget) > 0 {
			t.Errorf("the questions are %v, forgotten %v", ask, forget)
		}
		if !h.Expects("a.test") || h.Expects("b.test") {
			t.Error("only answers are expected")
		}
		h.Answer([]string{"a.test"}, []string{"gone.test"})
		all.Wait()
		for range 10 {
			if got := <-results; got != Known {
				t.Errorf("a host with routes: %s", got)
			}
		}
		if got := find("gone.test", "c"); got != Unknown || !h.Expects("gone.test") {
			t.Errorf("again: %s", got)
		}
		h.Ended()
		if got := find("gone.test", "c"); got != Away {
			t.Errorf("a host that a project may have claimed since: %s", got)
		}
		h.Connected(false) // a server of an older version
		if got := find("b.test", "c"); got != Unknown {
			t.Errorf("the table is complete: %s", got)
		}
	})
}

// TestLate: a request waits for some time, also while the server is away, and the question is asked again.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Limits{Patience: time.Minute}, func() []string { return nil }, nil)
		h.Connected(true)
		var all sync.WaitGroup
		all.Go(func() {
			if got := h.Find(t.Context(), "a.test", "c"); got != Late {
				t.Errorf("without an answer: %s", got)
			}
		})
		synctest.Wait()
		h.Take()
		h.Ended()
		if got := h.Begin(); !slices.Equal(got, []string{"a.test"}) {
			t.Errorf("the next connection asks %v", got)
		}
		all.Wait()
		ctx, leave := context.WithCancel(t.Context())
		leave()
		h.Connected(true)
		if got := h.Find(ctx, "a.test", "c"); got != Late || h.waiting != 0 || len(h.clients) != 0 {
			t.Errorf("a client that left: %s, %d wait", got, h.waiting)
		}
	})
}

// TestUnknownHosts: 100,000 hosts that no project claims leave no more than the limit behind, and the server is told.
func TestUnknownHosts(t *testing.T) {
	h := New(Limits{}, func() []string { return nil }, nil)
	h.Connected(true)
	wanted := map[string]bool{} // by the server
	for i := range 100_000 {
		host := fmt.Sprintf("h%d.test", i)
		h.mu.Lock()
		h.questions[host] = &question{done: make(chan struct{})}
		h.mu.Unlock()
		wanted[host] = true
		h.Answer(nil, []string{host})
		if i%1000 == 0 {
			_, forget := h.Take()
			for _, host := range forget {
				delete(wanted, host)
			}
		}
	}
	_, forget := h.Take()
	for _, host := range forget {
		delete(wanted, host)
	}
	if kept := len(h.unknown) + len(h.older); kept > h.limits.Unknown || kept != len(wanted) || len(h.questions) > 0 {
		t.Errorf("%d are kept, and the server tells changes of %d", kept, len(wanted))
	}
	if !h.Expects("h99999.test") || h.Expects("h0.test") {
		t.Error("not the last hosts are kept")
	}
}

// TestForgetAndAsk: a host that is asked about again is not forgotten afterwards.
func TestForgetAndAsk(t *testing.T) {
	h := New(Limits{Patience: time.Nanosecond}, func() []string { return nil }, nil)
	h.Connected(true)
	h.Forget([]string{"a.test", "b.test"})
	if h.Expects("a.test") {
		t.Error("a forgotten host is expected")
	}
	h.Find(t.Context(), "a.test", "c")
	if ask, forget := h.Take(); !slices.Equal(ask, []string{"a.test"}) || !slices.Equal(forget, []string{"b.test"}) {
		t.Errorf("asked %v, forgotten %v", ask, forget)
	}
}
