package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command and flag in a message of the programs exists.
func TestAdviceWorks(t *testing.T) {
	root := newRoot(&app{})
	known := flagsOf(root)
	page, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\|").FindAllStringSubmatch(string(page), -1) { // docs holds these tables against the programs
		known[m[1]] = true
	}
	for _, name := range []string{
		"help", "version", "down", "from", "etcd-data-dir", "etcd-program", "object-format", "ref-format", // of cobra, of cara-server dev, migrate and recover, and of git
		"auto-compaction-mode", "auto-compaction-retention", "quota-backend-bytes", "max-request-bytes", "max-txn-ops", "prefix", // of etcd
	} {
		known[name] = true
	}
	commands, flags := 0, 0
	for _, said := range sayings(t, "..") {
		for _, words := range commandsIn(said.text) {
			commands++
			if why := checkCommand(root, words); why != "" {
				t.Errorf("%s: %q: caractrl %s: %s", said.at, said.text, strings.Join(words, " "), why)
			}
		}
		if strings.HasPrefix(said.text, "--") && !strings.Contains(said.text, " ") {
			continue // no message, but an argument of rsync, restic or git
		}
		for _, m := range flagPattern.FindAllStringSubmatch(said.text, -1) {
			if flags++; !known[m[1]] {
				t.Errorf("%s: %q: no program of Cara has the flag --%s", said.at, said.text, m[1])
			}
		}
	}
	if commands < 20 || flags < 20 {
		t.Errorf("only %d commands and %d flags were found in messages", commands, flags)
	}
}

// TestAdviceIsChecked sees that TestAdviceWorks can fail.
func TestAdviceIsChecked(t *testing.T) {
	root := newRoot(&app{})
	for text, ok := range map[string]bool{
		"mend it, then: caractrl retry x":             true,
		"use caractrl create token NAME --role join":  true,
		"caractrl keeps using another cluster":        true, // prose
		"see `caractrl describe project x`.":          true,
		"caractrl override clear x ends it":           true,
		"mend it, then: caractrl rettry x":            false,
		"caractrl create tokens NAME":                 false,
		"use caractrl create token NAME --rolle join": false,
		"caractrl apply -q":                           false,
	} {
		why := ""
		for _, words := range commandsIn(text) {
			why += checkCommand(root, words)
		}
		if (why == "") != ok {
			t.Errorf("%q: %q", text, why)
		}
	}
}

var (
	flagPattern    = regexp.MustCompile(`(?:^|[\s("'` + "`" + `])--([a-z][a-z-]+)`)
	commandPattern = regexp.MustCompile("caractrl ((?:[^ \n,;:.()`\"']+ ?)+)")
)

// prose lists words that follow the program's name in prose.
var prose = []string{"keeps", "uses", "needs", "wrote", "must", "says", "and", "x"}

// saying is one text in the source, with x for inserted values.
type saying struct{ at, text string }

// sayings returns the texts in the Go files below a directory, except tests and generated files.
func sayings(t *testing.T, dir string) (all []saying) {
	t.Helper()
	verb := regexp.MustCompile(`%[-+#0-9.]*[a-zA-Z]|\{\{[^}]*\}\}`)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "gen" || d.Name() == "testdata" || d.Name() == "hack" || d.Name() == "tools" || d.Name() == "e2e" || d.Name() == "bench" || strings.HasPrefix(d.Name(), "test")):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if text, whole := textOf(e); whole {
					all = append(all, saying{files.Position(n.Pos()).String(), verb.ReplaceAllString(text, "x")})
					return false
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// textOf returns the text of a literal or a concatenation, with x for unknown parts.
func textOf(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "x", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "x", false
		}
		left, l := textOf(e.X)
		right, r := textOf(e.Y)
		return left + right, l || r
	}
	return "x", false
}

// commandsIn are the commands of caractrl in a text, as words.
func commandsIn(text string) (all [][]string) {
	for _, m := range commandPattern.FindAllStringSubmatch(text, -1) {
		if words := strings.Fields(m[1]); len(words) > 0 {
			all = append(all, words)
		}
	}
	return all
}

// checkCommand returns what is wrong with a command in a text. The words after it may be prose.
func checkCommand(root *cobra.Command, words []string) string {
	if slices.Contains(prose, words[0]) {
		return ""
	}
	cmd := root
	for i, word := range words {
		if strings.HasPrefix(word, "-") {
			break
		}
		next := subcommand(cmd, word)
		if next == nil && word == "lists" {
			break // `caractrl context lists them`
		}
		if next == nil && (i == 0 || cmd.HasSubCommands() && !strings.Contains(cmd.Use, " ")) {
			return "there is no such command"
		}
		if next == nil {
			break
		}
		cmd = next
	}
	for _, word := range words {
		if word == "--" {
			break
		}
		name, long := strings.CutPrefix(word, "--")
		switch {
		case long:
			name, _, _ = strings.Cut(name, "=")
			if cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && name != "help" {
				return "it has no flag --" + name
			}
		case len(word) > 1 && word[0] == '-':
			for _, short := range word[1:] {
				if cmd.Flags().ShorthandLookup(string(short)) == nil && cmd.InheritedFlags().ShorthandLookup(string(short)) == nil {
					return "it has no flag -" + string(short)
				}
			}
		}
	}
	return ""
}

func subcommand(cmd *cobra.Command, name string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}

// flagsOf are the long flags of a command and of all below it.
func flagsOf(cmd *cobra.Command) map[string]bool {
	names := map[string]bool{}
	collect := func(usage string) {
		for _, m := range regexp.MustCompile(`--([a-z][a-z-]+)`).FindAllStringSubmatch(usage, -1) {
			names[m[1]] = true
		}
	}
	collect(cmd.Flags().FlagUsages())
	collect(cmd.PersistentFlags().FlagUsages())
	for _, c := range cmd.Commands() {
		for name := range flagsOf(c) {
			names[name] = true
		}
	}
	return names
}
