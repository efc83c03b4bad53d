// Command demo tells the story of Cara from a git push to running containers and back, with the real programs, a real
// git server and a real Docker engine, each step checked and timed. "make demo" runs it; with KEEP=1 what it made stays
// up until it is told to end.
//
// It stands outside the straight line and walks along all of it. Invariants: nothing is claimed that was not checked;
// whatever happens, nothing of it is left in Docker; the exit code is 0 only where every step held.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// wholeTime bounds the story; warm it takes less than a minute.
const wholeTime = 10 * time.Minute

func main() {
	bin := flag.String("bin", "", "directory of cara-server, cara-agent and caractrl (default: build them)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, *bin, os.Getenv("KEEP") != "" && os.Getenv("KEEP") != "0"))
}

func run(ctx context.Context, bin string, keep bool) (code int) {
	out := newTeller(os.Stdout)
	d := &demo{out: out, bin: bin}
	story, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	err := d.tell(story)
	if err == nil && keep {
		if err = d.reachable(ctx); err == nil {
			<-ctx.Done()
		}
	}
	ending, cancelEnding := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancelEnding()
	if err == nil {
		err = out.step("Delete the source: nothing is left in Docker", func() error { return d.leave(ending) })
	}
	if err != nil {
		out.failed(err, d.dump(ending))
	}
	if endErr := d.end(ending); endErr != nil {
		out.failed(endErr, "")
		err = errors.Join(err, endErr)
	}
	out.table()
	if err != nil {
		fmt.Fprintln(out.out, "The demo FAILED.")
		return 1
	}
	fmt.Fprintln(out.out, "Every step held, and nothing is left in Docker.")
	return 0
}
