package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts run caractrl as a process of its own: this test binary, with the script's environment and directory. Its
// clock is the script's.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"caractrl": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(run(ctx, os.Args[1:], &app{
			Streams: Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version: "v1", now: scriptClock(),
		}))
	}})
}

const clockVar = "TEST_NOW"

func scriptClock() func() time.Time {
	at, err := time.Parse(time.RFC3339, os.Getenv(clockVar))
	if err != nil {
		return time.Now
	}
	return func() time.Time { return at }
}
