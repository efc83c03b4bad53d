package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

const (
	green = "\x1b[32m"
	red   = "\x1b[31m"
	faint = "\x1b[90m"
	bold  = "\x1b[1m"
	reset = "\x1b[0m"
	erase = "\r\x1b[K"
)

// printer prints the story, keeps the time of each step, and shows what is being waited for.
type printer struct {
	out      *os.File
	terminal bool
	colour   bool
	width    int

	steps []step
}

type step struct {
	title string
	took  time.Duration
	ok    bool
}

func newTeller(out *os.File) *printer {
	t := &printer{out: out, terminal: term.IsTerminal(int(out.Fd())), width: 100}
	_, no := os.LookupEnv("NO_COLOR") // https://no-color.org
	t.colour = t.terminal && !no
	if w, _, err := term.GetSize(int(out.Fd())); err == nil && w > 20 {
		t.width = w
	}
	return t
}

func (t *printer) paint(colour, text string) string {
	if !t.colour {
		return text
	}
	return colour + text + reset
}

// step tells, does and times one step.
func (t *printer) step(title string, do func() error) error {
	fmt.Fprintln(t.out, t.paint(bold, fmt.Sprintf("%2d. %s", len(t.steps)+1, title)))
	began := time.Now()
	err := do()
	s := step{title, time.Since(began), err == nil}
	t.steps = append(t.steps, s)
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	fmt.Fprintf(t.out, "    %s %s\n\n", t.paint(green, "ok"), t.paint(faint, seconds(s.took)))
	return nil
}

// say adds a line to a step.
func (t *printer) say(format string, args ...any) {
	fmt.Fprintf(t.out, "    "+format+"\n", args...)
}

// show adds what a command printed.
func (t *printer) show(command, output string) {
	fmt.Fprintln(t.out, t.paint(faint, "    $ "+command))
	for line := range strings.Lines(output) {
		fmt.Fprint(t.out, "      "+line)
	}
}

// wait waits for a condition and shows, on a terminal, for how long already and how it stands.
func (t *printer) wait(ctx context.Context, what string, cond func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began, shown := time.Now(), time.Now()
	err := testcluster.WaitFor(ctx, what, func(ctx context.Context) error {
		err := cond(ctx)
		if err != nil && time.Since(shown) > 200*time.Millisecond {
			shown = time.Now()
			t.progress(fmt.Sprintf("    ... %s (%s): %v", what, seconds(time.Since(began)), err))
		}
		return err
	})
	if t.terminal {
		fmt.Fprint(t.out, erase)
	}
	if err == nil {
		t.say("%s after %s", what, seconds(time.Since(began)))
	}
	return err
}

func (t *printer) progress(text string) {
	if !t.terminal {
		return
	}
	text = strings.Join(strings.Fields(strings.ReplaceAll(text, "\n", " ")), " ")
	if utf8.RuneCountInString(text) > t.width-5 {
		text = string([]rune(text)[:t.width-5])
	}
	fmt.Fprint(t.out, erase+t.paint(faint, "    "+text))
}

func (t *printer) failed(err error, dump string) {
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(t.out, "\nInterrupted.")
		return
	}
	fmt.Fprintf(t.out, "\n%s %v\n%s", t.paint(red, "FAILED"), err, dump)
}

// table ends the story: each step and its seconds.
func (t *printer) table() {
	width := 0
	for _, s := range t.steps {
		width = max(width, utf8.RuneCountInString(s.title))
	}
	var all time.Duration
	fmt.Fprintln(t.out)
	for n, s := range t.steps {
		mark := t.paint(green, "ok")
		if !s.ok {
			mark = t.paint(red, "FAILED")
		}
		all += s.took
		fmt.Fprintf(t.out, "%3d  %-*s  %8s  %s\n", n+1, width, s.title, seconds(s.took), mark)
	}
	fmt.Fprintf(t.out, "     %-*s  %8s\n\n", width, "altogether", seconds(all))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
