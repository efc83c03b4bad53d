package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// block is one fenced block of a page: a file (```yaml NAME, ```sh NAME) or commands (```console). Others are left out.
type block struct {
	file, text string
	commands   []command
}

// command is one line after `$ `, with what it prints and, as `[3]` in a line of its own, its exit code. In the output a
// line of `...` stands for any lines, and `...` within a line for any text.
type command struct {
	line, output string
	code, at     int
}

// looks tells whether a command only looks, and may be asked again until the cluster is as the page says.
func (c command) looks() bool {
	for _, verb := range []string{"caractrl get ", "caractrl describe ", "caractrl trace ", "caractrl history ", "caractrl diff ", "caractrl logs ", "caractrl version", "curl "} {
		if strings.HasPrefix(c.line, verb) {
			return true
		}
	}
	return false
}

func parse(page string) ([]block, error) {
	var blocks []block
	var info string
	var at int
	var lines []string
	inside := false
	for n, line := range strings.Split(page, "\n") {
		fence, found := strings.CutPrefix(line, "```")
		switch {
		case !found && inside:
			lines = append(lines, line)
		case found && !inside:
			inside, info, at, lines = true, fence, n+1, nil
		case found:
			inside = false
			lang, name, _ := strings.Cut(info, " ")
			switch {
			case (lang == "yaml" || lang == "sh") && name != "":
				blocks = append(blocks, block{file: name, text: strings.Join(lines, "\n") + "\n"})
			case lang == "console":
				blocks = append(blocks, block{commands: commandsOf(lines, at)})
			}
		}
	}
	if inside {
		return nil, fmt.Errorf("the block that begins in line %d has no end", at)
	}
	return blocks, nil
}

func commandsOf(lines []string, at int) []command {
	var commands []command
	for i, line := range lines {
		if text, ok := strings.CutPrefix(line, "$ "); ok {
			commands = append(commands, command{line: text, at: at + i + 1})
			continue
		}
		c := &commands[len(commands)-1]
		if code, err := strconv.Atoi(strings.Trim(line, "[]")); err == nil && strings.HasPrefix(line, "[") {
			c.code = code
			continue
		}
		c.output += line + "\n"
	}
	return commands
}

// matches holds output against what a page says of it. How wide columns are depends on what is in them, so that runs of
// spaces are alike; and a deletion may be done at once or not.
func matches(want, got string) bool {
	var pattern strings.Builder
	pattern.WriteString(`^`)
	for line := range strings.Lines(want) {
		line = strings.TrimRight(line, "\n")
		if line == "..." {
			pattern.WriteString(`(?:[^\n]*\n)*`)
			continue
		}
		text := regexp.QuoteMeta(line)
		text = regexp.MustCompile(` +`).ReplaceAllString(text, ` +`)
		text = strings.ReplaceAll(text, ` +\.\.\.`, `[^\n]*`)
		text = strings.ReplaceAll(text, `\.\.\. +`, `[^\n]*`)
		text = strings.ReplaceAll(text, `\.\.\.`, `[^\n]*`)
		if strings.HasPrefix(line, "project ") {
			text = strings.Replace(text, `" +deleted`, `" +(?:is being )?deleted`, 1)
		}
		pattern.WriteString(text + ` *\n`)
	}
	pattern.WriteString(`$`)
	return regexp.MustCompile(pattern.String()).MatchString(got)
}

// shell runs one line as a reader would, and returns all that it prints.
func (g *guide) shell(ctx context.Context, line string) (output string, code int, err error) {
	cmd := exec.CommandContext(ctx, "/bin/bash", "-o", "pipefail", "-c", line)
	cmd.Dir, cmd.Env, cmd.WaitDelay = g.home, g.env, time.Second
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		return both.String(), exit.ExitCode(), nil
	}
	return both.String(), 0, err
}
