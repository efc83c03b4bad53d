// Command front measures the agent's ingress and ports beside Caddy, nginx, HAProxy and the bare parts of Go's standard library:
// all in one run, in front of the same backend, on this machine. It prints a table. "make bench-front" runs it.
//
// It stands outside the straight line, and walks its last step only: from a client to a service. Invariants: each proxy is a process of its
// own, with the same certificate and without an access log; the proxies take turns, so that other load affects all equally; a
// figure is the median of the rounds; nothing is left behind. A proxy that is not installed is left out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caravanserai/cara/internal/test/testca"
)

// options are what the command line says.
type options struct {
	rounds      int
	long        time.Duration
	idle, hosts int
	size        int64
	only        string
	role, dir   string
	many        int
	rows        string
	profiles    string
}

const (
	host      = "front.test" // over HTTPS
	plainHost = "plain.test" // over HTTP
	chainFile = "chain.pem"
	keyFile   = "key.pem"
)

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "rounds; each figure is their median")
	flag.DurationVar(&o.long, "long", 5*time.Second, "how long requests are sent in a round")
	flag.IntVar(&o.idle, "idle", 10_000, "idle connections whose memory is measured")
	flag.IntVar(&o.hosts, "hosts", 10_000, "hosts whose memory is measured")
	flag.Int64Var(&o.size, "big", 1<<30, "size of the large body, in bytes")
	flag.StringVar(&o.only, "only", "", "proxies to measure, separated by commas (default: all that are installed)")
	flag.StringVar(&o.role, "role", "", "be one of the processes of a run and nothing else")
	flag.StringVar(&o.dir, "dir", "", "directory of a run, for -role")
	flag.StringVar(&o.rows, "rows", "", "what to measure, of http, https, http2, handshakes, body, tcp, idle and hosts, separated by commas (default: all)")
	flag.StringVar(&o.profiles, "profiles", "", "directory for profiles of the processor and the memory of cara and bare; choose one of -rows for each run")
	flag.IntVar(&o.many, "many", 0, "further hosts, for -role")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	files := syscall.Rlimit{Cur: 1 << 17, Max: 1 << 17}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		fmt.Fprintln(os.Stderr, "front: more files cannot be opened, which -idle needs:", err)
	}
	run := o.run
	if o.role != "" {
		run = o.be
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "front:", err)
		os.Exit(1)
	}
}

// run measures everything.
func (o options) run(ctx context.Context) (err error) {
	if o.dir, err = os.MkdirTemp("", "cara-front-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	ca, err := testca.New()
	if err != nil {
		return err
	}
	chain, key, err := ca.Site(time.Now().Add(24*time.Hour), host)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{chainFile: chain, keyFile: key} {
		if err := os.WriteFile(filepath.Join(o.dir, name), data, 0o600); err != nil {
			return err
		}
	}
	back, err := o.start(ctx, "backend", 0)
	if err != nil {
		return err
	}
	defer back.end()
	if err := os.WriteFile(filepath.Join(o.dir, "backend"), []byte(back.at["http"]+" "+back.at["tcp"]), 0o600); err != nil {
		return err
	}
	t := &table{figures: map[string]map[string][]float64{}}
	c := &contest{options: o, roots: ca.Pool(), table: t}
	for _, part := range []func(context.Context) error{c.requests, c.connections, c.manyHosts} {
		if err = part(ctx); err != nil {
			break
		}
	}
	fmt.Print(t)
	return err
}

// wanted reports whether a proxy is to be measured, and measured whether a row is.
func (o options) wanted(name string) bool { return listed(o.only, name) }

func (o options) measured(row string) bool { return listed(o.rows, row) }

func listed(all, one string) bool { return all == "" || slices.Contains(strings.Split(all, ","), one) }

// table collects figures by row and column.
type table struct {
	rows, columns []string
	figures       map[string]map[string][]float64
}

func (t *table) add(row, column string, figure float64) {
	if !slices.Contains(t.rows, row) {
		t.rows, t.figures[row] = append(t.rows, row), map[string][]float64{}
	}
	if !slices.Contains(t.columns, column) {
		t.columns = append(t.columns, column)
	}
	t.figures[row][column] = append(t.figures[row][column], figure)
	fmt.Fprintf(os.Stderr, "%-45s %-10s %10.2f\n", row, column, figure)
}

// String returns the table in Markdown: the medians, with the lowest and the highest figure.
func (t *table) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "| | %s |\n|---|%s\n", strings.Join(t.columns, " | "), strings.Repeat("---|", len(t.columns)))
	for _, row := range t.rows {
		out.WriteString("| " + row)
		for _, column := range t.columns {
			all := slices.Sorted(slices.Values(t.figures[row][column]))
			switch len(all) {
			case 0:
				out.WriteString(" | -")
			case 1:
				fmt.Fprintf(&out, " | %.4g", all[0])
			default:
				fmt.Fprintf(&out, " | %s (%s-%s)", short(all[len(all)/2]), short(all[0]), short(all[len(all)-1]))
			}
		}
		out.WriteString(" |\n")
	}
	return out.String()
}

func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
