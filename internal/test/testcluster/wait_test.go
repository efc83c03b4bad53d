package testcluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitFor(t *testing.T) {
	tests := map[string]struct {
		cond func(calls int) error
		want string // part of the error; empty: none
	}{
		"at once":      {func(int) error { return nil }, ""},
		"after a time": {func(n int) error { return until(n >= 3) }, ""},
		"never":        {func(int) error { return errors.New("still Pending") }, "wait until it runs: context deadline exceeded; last: still Pending"},
		"hopeless":     {func(int) error { return Fatal(errors.New("it exited")) }, "wait until it runs: it exited"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				calls := 0
				err := WaitFor(ctx, "it runs", func(context.Context) error { calls++; return tt.cond(calls) })
				if got := text(err); got != tt.want && !(tt.want != "" && strings.Contains(got, tt.want)) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func until(ok bool) error {
	if ok {
		return nil
	}
	return errors.New("not yet")
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestProcessIsEndedByItsOwnPid(t *testing.T) {
	p, err := Start(t.TempDir()+"/log", nil, "/bin/sh", "-c", "echo started; exec /bin/sleep 600")
	if err != nil {
		t.Fatal(err)
	}
	if p.Exited() {
		t.Fatal("it ended by itself")
	}
	if err := p.Kill(); err != nil || !p.Exited() {
		t.Errorf("kill: %v, exited %v", err, p.Exited())
	}
}

// TestWaitForAsksLessOften: a condition that holds soon is seen soon, and one that takes a minute is not asked 3,000 times.
func TestWaitForAsksLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began, calls := time.Now(), 0
		var early time.Duration // after which the condition was asked for the fifth time
		_ = WaitFor(ctx, "it runs", func(context.Context) error {
			if calls++; calls == 5 {
				early = time.Since(began)
			}
			return errors.New("still Pending")
		})
		if early > 100*time.Millisecond || calls > 300 {
			t.Errorf("the fifth call was after %s, and there were %d in a minute", early, calls)
		}
	})
}
