package apiserver

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// A panic in one of Apply's goroutines becomes the error of that call only.
func TestPanicInApplyIsThatCallsError(t *testing.T) {
	log := &lines{}
	h := newHouse(t, func(c *Config) { c.Logger = log.logger() })
	h.objects.MayCall = func(_ identity.Actor, method string) error {
		if method == carav1.NodeService_PutNode_FullMethodName {
			panic("a mistake")
		}
		return nil
	}
	apply := carav1.NewApplyServiceClient(h.as(t, "admin"))
	node := &carav1.Node{ApiVersion: api.APIVersion, Kind: api.KindNode, Metadata: &carav1.ObjectMeta{Name: "n1"}}
	_, err := apply.Apply(t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(web("a")), api.Wrap(node)}})
	testproblem.Want(t, err, codes.Internal, api.TitleInternal)
	if _, err := apply.Apply(t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(web("b"))}}); err != nil {
		t.Errorf("the next call: %v", err)
	}
	if n := strings.Count(log.String(), "call panicked"); n != 1 || !strings.Contains(log.String(), "crew_test.go") {
		t.Errorf("%d lines about the panic, want 1 with the stack:\n%s", n, log)
	}
}

func TestSpawnGuards(t *testing.T) {
	h := newHouse(t, nil)
	var got error
	<-h.guard.Go("test", func() error { panic("no") }, func(err error) { got = err })
	testproblem.Want(t, got, codes.Internal, api.TitleInternal)
	<-h.guard.Go("test", func() error { return io.EOF }, func(err error) { got = err })
	if !errors.Is(got, io.EOF) {
		t.Errorf("got %v, want the function's own error", got)
	}
	work, ctx := h.guard.Group(t.Context(), "test", 1)
	work.Go(func() error { panic("no") })
	testproblem.Want(t, work.Wait(), codes.Internal, api.TitleInternal)
	if ctx.Err() == nil {
		t.Error("the others of a crew are not told to end")
	}
}

// Reads in a transaction are repeatable: it does not see a concurrent commit, which makes it run again.
func TestTransactionReadsOneView(t *testing.T) {
	h := newHouse(t, nil)
	fillWith(t, h, web("a"))
	ctx := identity.WithActor(t.Context(), identity.Actor{Name: "user/admin", Role: api.RoleAdmin})
	runs := 0
	err := h.db.Transact(ctx, func(t *state.Tx) error {
		runs++
		before, had := state.Read[*carav1.Project](t, "a")
		all := state.List[*carav1.Project](t.Seen, "")
		if runs == 1 {
			if err := h.db.Transact(ctx, func(t *state.Tx) error { t.Remove(api.KindProject, "a"); return nil }); err != nil {
				return err
			}
		}
		after, has := state.Read[*carav1.Project](t, "a")
		again := state.List[*carav1.Project](t.Seen, "")
		if before != after || had != has || len(all) != len(again) {
			return fmt.Errorf("run %d: read %v (%v, %d projects), then %v (%v, %d projects)", runs, before, had, len(all), after, has, len(again))
		}
		if t.Object(api.KindProject, "a") != nil && !has {
			return errors.New("object and read differ")
		}
		t.Put(web("b"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if runs != 2 {
		t.Errorf("ran %d times, want 2: what it had read was gone at the commit", runs)
	}
}

// A transaction reads its own writes.
func TestTransactionReadsItsWrites(t *testing.T) {
	h := newHouse(t, nil)
	fillWith(t, h, web("a"))
	s := h.db.Begin(t.Context())
	s.Remove(api.KindProject, "a")
	s.Put(web("b"))
	if s.Object(api.KindProject, "a") != nil || s.Object(api.KindProject, "b") == nil {
		t.Errorf("a is %v, b is %v", s.Object(api.KindProject, "a"), s.Object(api.KindProject, "b"))
	}
}

// bare lists the files that start goroutines without a guard, and why they may.
var bare = map[string]string{
	"guard/guard.go":       "the guard itself",
	"identity/listener.go": "it accepts connections, before there is a call",
}

// TestGoroutinesAreGuarded checks the source code: a panic in a goroutine without a guard ends the process. A transaction
// that reads the live cache can see two states of one object.
func TestGoroutinesAreGuarded(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, problem := range unguarded(path, string(source)) {
			t.Error(problem)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnguardedFindsEachWay(t *testing.T) {
	for name, body := range map[string]string{
		"go":                  "func f() { go f() }",
		"errgroup":            "func f() { var g errgroup.Group; g.Go(nil) }",
		"wait group":          "func f() { var g sync.WaitGroup; g.Go(f) }",
		"timer":               "func f() { time.AfterFunc(1, f) }",
		"context":             "func f() { context.AfterFunc(nil, f) }",
		"method of Tx":        "func (t *Tx) f() { t.db.Cache.View() }",
		"function of Tx":      "func f(t *state.Tx) { t.db.Cache.View() }",
		"transaction's cache": "func f(s *Server) { s.db.Transact(nil, func(t *state.Tx) error { return s.db.Cache.Wait() }) }",
	} {
		if got := unguarded("x.go", "package x\n"+body); len(got) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
	if got := unguarded("x.go", "package x\nfunc f(s *Server) { s.db.Cache.View(); s.guard.Go(nil) }"); len(got) > 0 {
		t.Errorf("found in good code: %q", got)
	}
}

func unguarded(path, source string) (problems []string) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, 0)
	if err != nil {
		return []string{err.Error()}
	}
	report := func(n ast.Node, what string) {
		problems = append(problems, fmt.Sprintf("%s: %s", files.Position(n.Pos()), what))
	}
	starts := map[string]bool{"errgroup.Group": true, "errgroup.WithContext": true, "sync.WaitGroup": true, "time.AfterFunc": true, "context.AfterFunc": true}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if bare[path] == "" {
				report(n, "a bare go statement: use guard.Guard")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && starts[x.Name+"."+n.Sel.Name] && bare[path] == "" {
				report(n, x.Name+"."+n.Sel.Name+" starts goroutines without a guard: use guard.Guard")
			}
		case *ast.FuncDecl:
			if takesTx(n.Recv) || takesTx(n.Type.Params) {
				readsCache(n.Body, report)
			}
		case *ast.FuncLit:
			if takesTx(n.Type.Params) {
				readsCache(n.Body, report)
			}
		}
		return true
	})
	return problems
}

func takesTx(fields *ast.FieldList) bool {
	if fields == nil {
		return false
	}
	for _, f := range fields.List {
		if star, ok := f.Type.(*ast.StarExpr); ok {
			switch x := star.X.(type) {
			case *ast.SelectorExpr:
				if x.Sel.Name == "Tx" {
					return true
				}
			case *ast.Ident:
				if x.Name == "Tx" {
					return true
				}
			}
		}
	}
	return false
}

// readsCache reports every use of a field Cache.
func readsCache(body ast.Node, report func(ast.Node, string)) {
	ast.Inspect(body, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Cache" {
			report(sel, "a transaction looks at the live cache: use its view, Tx.Seen")
		}
		return true
	})
}
