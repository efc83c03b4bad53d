package docs

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// patience is how long a command may take until it says what the page says. It only ends a test that hangs.
const patience = 5 * time.Minute

// guide is the machine on which a reader follows the page: a home, the programs, an engine, and processes that stay.
type guide struct {
	*testing.T
	home    string
	bin     string // the programs
	env     []string
	replace *strings.Replacer
	stays   []*testcluster.Process
}

// TestUserGuide follows docs/user-guide.md from top to bottom, on the real programs and a real engine. Images and
// addresses are those of the test; everything else is as the page has it.
func TestUserGuide(t *testing.T) {
	host := testdocker.Engine(t)
	testneed.Program(t, "git", "git")
	testneed.Program(t, "curl", "curl")
	testdocker.Images(t, host, testimage.WebV1, testimage.WebV2, testimage.KV)
	registry := testregistry.New(t) // it has none of the images that are asked of it
	g := newGuide(t, host,
		"mysql:8.0", testimage.KV, "wordpress:6", testimage.WebV1, "nginx:1.27", testimage.WebV1, "nginx:1.28", testimage.WebV2,
		"nginx:1.72", registry.Ref("nginx:1.72"))
	g.follow("user-guide.md")
}

// TestWordPress follows docs/wordpress.md in the same way. The stand-ins of its images have a shell: the page writes files in
// the containers, and reads them through the ingress.
func TestWordPress(t *testing.T) {
	host := testdocker.Engine(t)
	for _, program := range []string{"curl", "rsync", "restic"} {
		testneed.Program(t, program, program)
	}
	testdocker.Images(t, host, testimage.Busybox)
	newGuide(t, host,
		"mysql:8.0\n", testimage.Busybox+"\n      command: [sleep, 1d]\n      stopGracePeriod: 1s\n",
		"wordpress:6\n", testimage.Busybox+"\n      command: [httpd, -f, -p, \"8080\", -h, /var/www/html]\n      stopGracePeriod: 1s\n",
	).follow("wordpress.md")
}

// follow runs the commands of a page and writes its files, from top to bottom.
func (g *guide) follow(name string) {
	for _, b := range g.blocks(name) {
		if b.file != "" {
			g.write(b.file, g.replace.Replace(b.text))
			continue
		}
		for _, c := range b.commands {
			if !g.command(c) {
				g.FailNow()
			}
		}
	}
}

// blocks reads the files and the commands of a page.
func (g *guide) blocks(name string) []block {
	page, err := os.ReadFile(name)
	if err != nil {
		g.Fatal(err)
	}
	blocks, err := parse(string(page))
	if err != nil {
		g.Fatal(err)
	}
	return blocks
}

// newGuide makes a machine on which images stand in for those of a page: swap has texts of the page, each with what the test has
// instead.
func newGuide(t *testing.T, host string, swap ...string) *guide {
	bin, home := t.TempDir(), t.TempDir()
	if err := testcluster.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	g := &guide{T: t, home: home, bin: bin}
	swap = append(swap, "port: 80\n", "port: 8080\n")
	for _, port := range []string{"8080", "8081", "8082", "8090", "8091"} {
		addr, err := testcluster.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		swap = append(swap, "127.0.0.1:"+port, addr)
		switch port {
		case "8080":
			g.env = append(g.env, "CARA_LISTEN="+addr)
		case "8081":
			g.env = append(g.env, "CARA_INGRESS_LISTEN="+addr)
		}
	}
	g.replace = strings.NewReplacer(swap...)
	g.env = append(g.env, "DOCKER_HOST="+host, "CARA_NETWORK_POOL=10.214.0.0/16", "HOME="+home, "XDG_CONFIG_HOME="+home+"/.config",
		"XDG_STATE_HOME="+home+"/.local/state", "PATH="+bin+":"+os.Getenv("PATH"), "NO_COLOR=1", "LANG=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Reader", "GIT_AUTHOR_EMAIL=reader@example.com",
		"GIT_COMMITTER_NAME=Reader", "GIT_COMMITTER_EMAIL=reader@example.com")
	t.Cleanup(func() { g.end(bin, host) })
	return g
}

// end stops what stays, and holds the engine against what a finished page leaves: nothing.
func (g *guide) end(bin, host string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.Context()), patience)
	defer cancel()
	if g.Failed() {
		for _, p := range g.stays {
			g.Logf("%s:\n%s", filepath.Base(p.LogFile), p.Tail(40))
		}
	}
	labels := map[string]string{}
	if c, err := testcluster.New(testcluster.Config{Dir: filepath.Join(g.home, "cara"), Bin: bin, Listen: g.replace.Replace("127.0.0.1:8080")}); err == nil && len(g.stays) > 0 {
		if labels, err = c.Labels(ctx); err != nil {
			g.Error(err)
		}
	}
	for _, p := range slices.Backward(g.stays) {
		if err := p.Stop(ctx); err != nil {
			g.Error(err)
		}
	}
	if len(labels) == 0 {
		return
	}
	held, err := testdocker.List(ctx, host, labels)
	if err != nil || !held.Empty() && !g.Failed() {
		g.Errorf("the engine holds at the end (%v):\n%s", err, held)
	}
	if err := testdocker.Remove(ctx, host, labels); err != nil {
		g.Error(err)
	}
}

func (g *guide) write(name, text string) {
	if err := os.WriteFile(filepath.Join(g.home, name), []byte(text), 0o600); err != nil {
		g.Fatal(err)
	}
}

// command runs one command of the page. One that only looks is asked again until it says what the page says.
func (g *guide) command(c command) bool {
	line := g.replace.Replace(c.line)
	if stays, ok := strings.CutSuffix(line, " &"); ok {
		p, err := testcluster.Start(filepath.Join(g.home, fmt.Sprintf("stays-%d.log", len(g.stays))), g.env, "/bin/bash", "-c", "cd "+g.home+" && exec "+stays)
		if err != nil {
			g.Error(err)
			return false
		}
		g.stays = append(g.stays, p)
		return true
	}
	ctx, cancel := context.WithTimeout(g.Context(), patience)
	defer cancel()
	want := g.replace.Replace(c.output)
	start := time.Now()
	defer func() { g.Logf("%6dms $ %s", time.Since(start).Milliseconds(), line) }()
	var last error
	err := testcluster.WaitFor(ctx, "$ "+line, func(ctx context.Context) error {
		got, code, err := g.shell(ctx, line)
		switch {
		case ctx.Err() != nil && last != nil: // the command was cut off; what it said before is what matters
			return last
		case err != nil:
			return testcluster.Fatal(err)
		case code == c.code && matches(want, got):
			return nil
		}
		err = fmt.Errorf("line %d of the page says [%d]\n%s\nbut it is [%d]\n%s", c.at, c.code, want, code, got)
		if !c.looks() {
			return testcluster.Fatal(err)
		}
		last = err
		return err
	})
	if err != nil {
		g.Error(err)
	}
	return err == nil
}

var update = flag.Bool("update", false, "write what the programs say into the pages")

func TestPagesReadAsTheyShould(t *testing.T) {
	page := "text\n```yaml a.yaml\nx: 1\n```\n```console\n$ one\nout ...\n[2]\n$ two | three\n$ four\na\n\nb\n```\n```sh\nnot this\n```\n"
	blocks, err := parse(page)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 || blocks[0].file != "a.yaml" || blocks[0].text != "x: 1\n" || len(blocks[1].commands) != 3 {
		t.Fatalf("got %+v", blocks)
	}
	one, four := blocks[1].commands[0], blocks[1].commands[2]
	if one.line != "one" || one.output != "out ...\n" || one.code != 2 || one.at != 6 || four.output != "a\n\nb\n" {
		t.Errorf("got %+v and %+v", one, four)
	}
	if _, err := parse("```console\n$ never\n"); err == nil {
		t.Error("a block without an end is read")
	}
}

func TestMatches(t *testing.T) {
	tests := []struct {
		want, got string
		ok        bool
	}{
		{"a\nb\n", "a\nb\n", true},
		{"a\n", "a\nb\n", false},
		{"a\nb\n", "a\n", false},
		{"", "", true},
		{"", "x\n", false},
		{"a ... c\n", "a b c\n", true},
		{"a ...\n", "a b\n", true},
		{"...x\n", "ax\n", true},
		{"a ... c\n", "a b\n", false},
		{"...\n", "", true},
		{"...\n", "x\ny\n", true},
		{"a\n...\nz\n", "a\nb\nc\nz\n", true},
		{"a\n...\nz\n", "a\nz\n", true},
		{"a\n...\nz\n", "a\nb\n", false},
		{"AGE\n", "AGE   \n", true},
		{"a   b\n", "a      b\n", true},
		{"(a) [b]\n", "(a) [b]\n", true},
		{"project \"x\" deleted\n", "project \"x\" is being deleted\n", true},
		{"project \"x\" deleted\n", "project \"y\" deleted\n", false},
	}
	for _, tt := range tests {
		if matches(tt.want, tt.got) != tt.ok {
			t.Errorf("matches(%q, %q) is not %v", tt.want, tt.got, tt.ok)
		}
	}
}
