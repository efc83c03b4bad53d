package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
)

// leave deletes the source, and with it what it declared.
func (h *haDemo) leave(ctx context.Context) error {
	if err := h.show(ctx, "delete", "source", "deploy"); err != nil {
		return err
	}
	return h.out.wait(ctx, "Docker holds nothing of this cluster", h.holdsNothing)
}

func (h *haDemo) holdsNothing(ctx context.Context) error {
	for _, project := range []string{shop, blog} {
		held, err := testdocker.List(ctx, h.engine, map[string]string{api.LabelCluster: "", api.LabelProject: project})
		if err == nil && !held.Empty() {
			err = fmt.Errorf("left: %s", held)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// end takes away all that is left, however far the story came.
func (h *haDemo) end(ctx context.Context) error {
	h.visits.end()
	var errs []error
	for _, p := range h.agents {
		errs = append(errs, p.Kill())
	}
	for _, p := range h.running {
		errs = append(errs, p.Kill())
	}
	if h.gitLink != nil {
		errs = append(errs, h.gitLink.Close())
	}
	if h.network != nil {
		errs = append(errs, h.network.Close())
	}
	if h.engine != "" {
		for _, project := range []string{shop, blog} {
			errs = append(errs, testdocker.Remove(ctx, h.engine, map[string]string{api.LabelCluster: "", api.LabelProject: project}))
		}
	}
	return errors.Join(errors.Join(errs...), h.demo.end(ctx))
}

// dump is what to look at when a step failed.
func (h *haDemo) dump(ctx context.Context) string {
	var out strings.Builder
	for _, command := range []string{"servers", "nodes", "projects", "events"} {
		text, err := h.ctl(ctx, "get", command)
		fmt.Fprintf(&out, "--- caractrl get %s (%v)\n%s", command, err, text)
	}
	for name, p := range h.running {
		fmt.Fprintf(&out, "--- %s\n%s\n", name, p.Tail(10))
	}
	return out.String()
}

// reachable says, with KEEP, what is up and how to end it.
func (h *haDemo) reachable(context.Context) error {
	first := filepath.Join(h.dir, h.servers[0].name)
	h.out.say("Everything stays up (KEEP=1). In another terminal:")
	h.out.say("  export CARA_SERVER=https://%s:8080,https://%s:8080,https://%s:8080", h.servers[0].IP, h.servers[1].IP, h.servers[2].IP)
	h.out.say("  export CARA_TOKEN_FILE=%s CARA_CA_FILE=%s", filepath.Join(first, "admin.token"), filepath.Join(first, "ca.crt"))
	h.out.say("  %s get servers", filepath.Join(h.bin, "caractrl"))
	h.out.say("Ctrl-C here, or kill -TERM %d, ends it and leaves nothing behind.", os.Getpid())
	return nil
}

// visitor asks the shop all the time.
type visitor struct {
	stop      context.CancelFunc
	done      sync.WaitGroup
	n, failed atomic.Int64
}

func (v *visitor) begin(ctx context.Context, ingress string) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // end stops it
	v.stop = cancel
	v.done.Go(func() {
		for ctx.Err() == nil {
			if _, err := visit(ctx, ingress, "shop.demo.test"); ctx.Err() == nil {
				v.n.Add(1)
				if err != nil {
					v.failed.Add(1)
				}
			}
			_ = testcluster.Pause(ctx, 50*time.Millisecond) // the loop ends with ctx
		}
	})
}

func (v *visitor) end() (n, failed int64) {
	if v.stop != nil {
		v.stop()
		v.done.Wait()
	}
	return v.n.Load(), v.failed.Load()
}
