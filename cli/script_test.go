package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what caractrl says into the scripts")

// TestScripts runs the scripts of testdata. Each has a server of its own; what the scheduler and the nodes would do, the
// script says:
//
//	node NAME [HOSTVOLUME...]                a node joins and is Ready, and offers host volumes
//	holds NODE [VOLUME[=BYTES]...]           the engine of a node has these Managed volumes
//	bind PROJECT NODE                        the scheduler chooses a node
//	tooled NODE                              the machine of a node has rsync and restic
//	fills NODE STATE SNAPSHOT MSG            a node restores volumes
//	decide PROJECT ACTION NODE MESSAGE       the scheduler accepts or refuses a move; NODE may be -
//	explain PROJECT MESSAGE                  the scheduler finds none
//	report PROJECT PHASE STATE REASON MSG    the node reports; PHASE may be -
//	remove PROJECT                           the node has torn it down, and the record goes
//	silent NODE                              the node is not heard of any more
//	empty NODE                               nothing is left on a node that drains
//	publish SOURCE REVISION PROJECT...       a source declares projects
//	declare SOURCE REVISION FILE...          a source declares what is in files, and nothing else
//	pass SOURCE                              the reconciler applies that; it prunes nothing
//	deliver SOURCE SECRET EVENT              a git server sends a webhook, as GitHub does
//	says SOURCE CONDITION STATUS MESSAGE     a source's condition
//	clock DURATION                           time passes
//	code N COMMAND...                        the command ends with this exit code
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: *update, RequireExplicitExec: false,
		Setup: func(env *testscript.Env) error {
			h, err := open(t.TempDir())
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := h.close(); err != nil {
					t.Error(err)
				}
			})
			env.Values[serverKey{}] = h
			env.Setenv("CARA_SERVER", h.url)
			env.Setenv("CARA_TOKEN_FILE", h.tokenFile())
			env.Setenv("ADDRESS", h.address)
			env.Setenv("DATA", h.dir)
			env.Setenv("CRASH", "service web exits again and again: exit code 1\npanic: no database\n\x1b]0;owned\x07\x1b[31mgoodbye\x1b[0m")
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir)
			env.Setenv(clockVar, h.clock.text())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":  code,
			"node":  act(1, func(ctx context.Context, h *testServer, a []string) error { return h.node(ctx, a[0], a[1:]...) }),
			"holds": act(1, func(ctx context.Context, h *testServer, a []string) error { return h.holds(ctx, a[0], a[1:]...) }),
			"bind": act(2, func(ctx context.Context, h *testServer, a []string) error {
				return h.schedule(ctx, a[0], "Bind", a[1], "")
			}),
			"tooled": act(1, func(ctx context.Context, h *testServer, a []string) error { return h.tooled(ctx, a[0]) }),
			"decide": act(3, func(ctx context.Context, h *testServer, a []string) error {
				if a = append(a, ""); a[2] == "-" {
					a[2] = ""
				}
				return h.schedule(ctx, a[0], a[1], a[2], a[3])
			}),
			"explain": act(2, func(ctx context.Context, h *testServer, a []string) error {
				return h.schedule(ctx, a[0], "Explain", "", a[1])
			}),
			"report": act(5, func(ctx context.Context, h *testServer, a []string) error {
				if a[1] == "-" {
					a[1] = ""
				}
				return h.report(ctx, a[0], a[1], a[2], a[3], a[4])
			}),
			"backed": act(3, func(ctx context.Context, h *testServer, a []string) error { return h.backed(ctx, a[0], a[1], a[2]) }),
			"fills": act(4, func(ctx context.Context, h *testServer, a []string) error {
				return h.fills(ctx, a[0], a[1], a[2], a[3])
			}),
			"remove": act(1, func(ctx context.Context, h *testServer, a []string) error { return h.remove(ctx, a[0]) }),
			"empty":  act(1, func(ctx context.Context, h *testServer, a []string) error { return h.empty(ctx, a[0]) }),
			"await":  act(2, func(ctx context.Context, h *testServer, a []string) error { return h.await(ctx, a[0], a[1]) }),
			"silent": act(1, func(ctx context.Context, h *testServer, a []string) error { return h.silent(ctx, a[0]) }),
			"says": act(4, func(ctx context.Context, h *testServer, a []string) error {
				return h.sourceSays(ctx, a[0], a[1], a[2], a[3])
			}),
			"publish": act(3, func(ctx context.Context, h *testServer, a []string) error {
				return h.publish(ctx, a[0], a[1], a[2:]...)
			}),
			"declare": declare,
			"deliver": act(3, func(ctx context.Context, h *testServer, a []string) error { return h.deliver(ctx, a[0], a[1], a[2]) }),
			"pass":    act(1, func(ctx context.Context, h *testServer, a []string) error { return h.pass(ctx, a[0]) }),
			"clock":   passTime,
		},
	})
}

type serverKey struct{}

func act(args int, do func(context.Context, *testServer, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, a []string) {
		if neg || len(a) < args {
			ts.Fatalf("want %d arguments and no !", args)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		ts.Check(do(ctx, ts.Value(serverKey{}).(*testServer), a))
	}
}

func passTime(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	h := ts.Value(serverKey{}).(*testServer)
	h.clock.add(d)
	ts.Setenv(clockVar, h.clock.text())
}

// code runs a command and holds its exit code against the one that is wanted.
func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	out, errs := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	fmt.Fprint(ts.Stdout(), out)
	fmt.Fprint(ts.Stderr(), errs)
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
