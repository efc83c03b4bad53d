package cara_test

import (
	"fmt"
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
	"testing/fstest"
)

// TestWordsAreSpelledOnce keeps the words of the contract (phases, reasons, states, scopes, actions, types, titles, owner prefixes) in api. A
// misspelt literal compiles and matches nothing; a misspelt constant does not compile.
func TestWordsAreSpelledOnce(t *testing.T) {
	words, problems, err := spelledTwice(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(words) < 200 {
		t.Errorf("found %d words in api, want at least 200: the test no longer reads them", len(words))
	}
	for _, problem := range problems {
		t.Error(problem)
	}
}

// A constant of api with one of these prefixes is a word of the contract.
var wordPrefixes = regexp.MustCompile(`^(Adopt|Apply|Claim|Cond|Delivery|Depends|Event|Health|Kind|Node|OnDelete|Override|Phase|Prefix|` +
	`Provider|Pull|Reason|Reclaim|Restart|Role|Schedule|Scope|Secret|Service|Status|Title|Update|Volume|Watch)[A-Z]`)

var (
	// oneWord has the form of a word of the contract. Such a literal may be an ordinary word of a table's header, too, so it is a problem only
	// in a wordPlace.
	oneWord = regexp.MustCompile(`^[A-Z][a-z]+([A-Z][a-z]+)*$`)
	// unmistakable words are problems wherever they stand.
	unmistakable = regexp.MustCompile(`^([A-Z][a-z]+){2,}$|/$`)
	// wordFields hold words, in messages and in Go's structs.
	wordFields = regexp.MustCompile(`^(Get)?(Action|DeletionReason|Health|Owner|Phase|Provider|Reason|Result|Role|Scope|State|Status|Title|Type|typ|state|reason)$`)
	// wordTakers are functions with a reason or a type among their arguments.
	wordTakers = regexp.MustCompile(`^(Human|Retry|attempt|condition|event|evict|explain|fail|is|keep|leave|move|projectEvent|sourceEvent|suspend|tell|tellOf)$`)
)

// foreignWords are those of another program's interface, which have the form of ours.
func foreignWords(dir string) bool { return dir == "agent/docker" }

// spelledTwice reads the words of api and finds their literals in programs.
func spelledTwice(tree fs.FS) (words map[string]bool, problems []string, err error) {
	words = map[string]bool{}
	files := token.NewFileSet()
	var programs []*ast.File
	err = walk(tree, func(path string, text []byte) error {
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || generated(text) || !isProgram(filepath.Dir(path)) {
			return nil
		}
		file, err := parser.ParseFile(files, path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if filepath.Dir(path) == "api" {
			addWords(words, file)
		} else {
			programs = append(programs, file)
		}
		return nil
	})
	for _, file := range programs {
		problems = append(problems, literalsOf(words, files, file)...)
	}
	return words, problems, err
}

// isProgram leaves out what only tests use.
func isProgram(dir string) bool {
	return !isTestSupport(dir) && !slices.Contains([]string{"bench", "docs", "e2e", "fixtures", "hack"}, top(dir)) && !strings.Contains(dir, "enginetest")
}

func addWords(words map[string]bool, file *ast.File) {
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST {
			continue
		}
		for _, s := range decl.Specs {
			spec := s.(*ast.ValueSpec)
			if len(spec.Values) == 1 && wordPrefixes.MatchString(spec.Names[0].Name) {
				if word, ok := literal(spec.Values[0]); ok && word != "" {
					words[word] = true
				}
			}
		}
	}
}

// literalsOf finds the literals of one file that should be constants of api.
func literalsOf(words map[string]bool, files *token.FileSet, file *ast.File) []string {
	var problems []string
	tell := func(e ast.Expr, word string) {
		problems = append(problems, fmt.Sprintf("%s: %q is a word of the contract: use its constant of api, or add one", files.Position(e.Pos()), word))
	}
	// inPlace is for an expression that stands where a word must stand.
	foreign := foreignWords(filepath.Dir(files.Position(file.Pos()).Filename))
	inPlace := func(e ast.Expr) {
		if foreign {
			return
		}
		if word, ok := literal(e); ok && !unmistakable.MatchString(word) && (oneWord.MatchString(word) || words[word]) {
			tell(e, word)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.BasicLit:
			if word, ok := literal(n); ok && words[word] && unmistakable.MatchString(word) {
				tell(n, word)
			}
		case *ast.BinaryExpr:
			if holdsWord(n.X) && (n.Op == token.EQL || n.Op == token.NEQ) {
				inPlace(n.Y)
			}
		case *ast.SwitchStmt:
			if n.Tag != nil && holdsWord(n.Tag) {
				for _, c := range n.Body.List {
					for _, e := range c.(*ast.CaseClause).List {
						inPlace(e)
					}
				}
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && wordFields.MatchString(key.Name) {
				inPlace(n.Value)
			}
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if len(n.Rhs) == len(n.Lhs) && holdsWord(l) {
					inPlace(n.Rhs[i])
				}
			}
		case *ast.CallExpr:
			if wordTakers.MatchString(nameOf(n.Fun)) {
				for _, e := range n.Args {
					inPlace(e)
				}
			}
		}
		return true
	})
	return problems
}

// holdsWord says whether an expression is a field, a getter or a variable with the name of one of wordFields.
func holdsWord(e ast.Expr) bool {
	if call, ok := e.(*ast.CallExpr); ok {
		e = call.Fun
	}
	return wordFields.MatchString(nameOf(e))
}

func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

func TestSpelledTwice(t *testing.T) {
	code := func(body string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("package p\n\nfunc f() {\n" + body + "\n}\n")}
	}
	_, problems, err := spelledTwice(fstest.MapFS{
		"api/words.go": {Data: []byte("package api\n\nconst (\n\tReasonSpecChanged = \"SpecChanged\"\n\tPhaseRunning = \"Running\"\n\tPrefixSource = \"source/\"\n" +
			"\tApplyRefused = \"refused\"\n\tMaxName = \"Longest\"\n)\n")},
		"gc/anywhere.go":           code(`x := "SpecChanged"`),
		"gc/prefix.go":             code(`x := "source/" + name`),
		"gc/field.go":              code(`x := T{Phase: "Running"}`),
		"gc/compared.go":           code(`x := p.GetPhase() == "Running"`),
		"gc/switched.go":           code(`switch r.Action { case "refused": }`),
		"gc/assigned.go":           code(`c.Reason = "Running"`),
		"gc/unknown.go":            code(`t.event(object, "Newest", message)`),
		"gc/test_test.go":          code(`x := "SpecChanged"`),
		"e2e/x.go":                 code(`x := "SpecChanged"`),
		"gen/x.go":                 {Data: []byte("// Code generated by x. DO NOT EDIT.\npackage x\n\nconst x = \"SpecChanged\"\n")},
		"cli/header.go":            code(`a.field("Running", "refused")`),
		"cli/no_word.go":           code(`x := "Longest"`),
		"internal/test/testx/x.go": code(`x := "SpecChanged"`),
	})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(problems, "\n")
	want := []string{
		`gc/anywhere.go:4:6: "SpecChanged"`, `gc/prefix.go:4:6: "source/"`, `gc/field.go:4:15: "Running"`, `gc/compared.go:4:22: "Running"`,
		`gc/switched.go:4:24: "refused"`, `gc/assigned.go:4:12: "Running"`, `gc/unknown.go:4:17: "Newest"`,
	}
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("problems:\n%s\nwant %s among them", got, w)
		}
	}
	if len(problems) != len(want) {
		t.Errorf("%d problems, want %d:\n%s", len(problems), len(want), got)
	}
}
