package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// seconds are the second engines that no test uses at the moment. Starting one and loading its images takes longer than
// many a test.
var (
	seconds       = make(chan *testdocker.Second, 32)
	startedSecond atomic.Int64
)

// secondEngine returns an engine in a network namespace that the test has to itself: one that an earlier test has left
// empty, or a new one. A test that breaks its engine starts its own with testdocker.SecondEngine.
func secondEngine(t *testing.T) *testdocker.Second {
	t.Helper()
	testneed.NotShort(t)
	var second *testdocker.Second
	select {
	case second = <-seconds:
	default:
		var err error
		second, err = testdocker.StartSecond(t.Context(), "p"+strconv.FormatInt(int64(os.Getpid()), 36)+"-"+strconv.FormatInt(startedSecond.Add(1), 36))
		if errors.Is(err, testdocker.ErrNoSecond) {
			testneed.Missing(t, "%v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		held, err := testdocker.List(ctx, second.Host, nil)
		if err == nil && !t.Failed() && len(held.Containers)+len(held.Volumes) == 0 {
			seconds <- second
			return
		}
		if err := errors.Join(err, second.Drop(ctx)); err != nil {
			t.Error(err)
		}
	})
	return second
}

// dropSeconds removes the engines when all tests have ended.
func dropSeconds() error {
	for {
		select {
		case second := <-seconds:
			if err := second.Drop(context.Background()); err != nil {
				return fmt.Errorf("at the end of all tests: %w", err)
			}
		default:
			return nil
		}
	}
}
