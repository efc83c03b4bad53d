// Command demo tells the story of Cara from a git push to running containers and back, with the real programs, a real
// git server and a real Docker engine, each step checked and timed. "make demo" runs it; with KEEP=1 what it made stays
// up until it is told to end. "make demo HA=1" tells what users see when servers and members of etcd are lost.
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
	ha := flag.Bool("ha", false, "tell the story of three servers on etcd")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, *bin, *ha, os.Getenv("KEEP") != "" && os.Getenv("KEEP") != "0"))
}

// story is one of the demos.
type story interface {
	tell(ctx context.Context) error
	reachable(ctx context.Context) error // says how to use what stays up
	leave(ctx context.Context) error
	dump(ctx context.Context) string
	end(ctx context.Context) error
}

func run(ctx context.Context, bin string, ha, keep bool) (code int) {
	out := newTeller(os.Stdout)
	d := story(&demo{out: out, bin: bin})
	if ha {
		d = newHADemo(&demo{out: out, bin: bin})
	}
	bounded, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	err := d.tell(bounded)
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
