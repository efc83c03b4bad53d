package cara_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/caravanserai/cara/"

// graph says what each of our packages imports, tests left aside. Our own packages are named from the top of the tree
// ("store/pebble"), all others by their full path.
type graph map[string][]string

// A library belongs to one room, or few: everything that must change when the library does is there.
type library struct {
	prefix string // of the import path
	rooms  []string
	reason string
}

var libraries = []library{
	{"github.com/go-git/", []string{"sources/git"}, "git as a library has sharp edges (memory, concurrency); one room knows them"},
	{"github.com/fsnotify/fsnotify", []string{"sources/dir"}, "a watch event is a hint, and only sources/dir treats it as one"},
	{"github.com/docker/", []string{"agent/docker", "internal/test/testdocker"}, "the agent decides without an engine; agent/docker alone speaks to it"},
	{"github.com/moby/", []string{"agent/docker", "internal/test/testdocker"}, "the agent decides without an engine; agent/docker alone speaks to it"},
	{"github.com/cockroachdb/", []string{"store/pebble"}, "the store's interface stays small enough for another backend"},
	{"go.etcd.io/", []string{"store/etcd"}, "the store's interface is all that the server knows of etcd"},
	{"go.uber.org/zap", []string{"store/etcd"}, "logs are slog's; only the client of etcd asks for another logger, and gets one that is silent"},
	{"github.com/grpc-ecosystem/grpc-gateway/", []string{"apiserver/rest", "gen/cara/v1"}, "REST is one room's business; behind it there is only gRPC"},
	{"gopkg.in/yaml", []string{"manifest"}, "YAML is read once, strictly and bounded; behind manifest there are only objects"},
	{"go.yaml.in/", []string{"manifest", "internal/settings"}, "a program reads its own few settings; all other YAML is read once, strictly and bounded; behind manifest there are only objects"},
	{"sigs.k8s.io/yaml", []string{"manifest"}, "YAML is read once, strictly and bounded; behind manifest there are only objects"},
	{"github.com/goccy/go-yaml", []string{"manifest"}, "YAML is read once, strictly and bounded; behind manifest there are only objects"},
	{"filippo.io/", []string{"manifest/sops", "internal/test"}, "files are decrypted in one place, which lets no plaintext into a text"},
	{"buf.build/go/protoyaml", []string{"manifest"}, "YAML is read once, strictly and bounded; behind manifest there are only objects"},
	{"github.com/compose-spec/", []string{"manifest/compose"}, "a Compose file means what Compose says; behind manifest/compose there are only objects"},
	{"github.com/robfig/cron/", []string{"api"}, "when a schedule is due is one pure function; the parser has its own ideas of time zones"},
	{"github.com/landlock-lsm/", []string{"agent/confine"}, "what a program can open is described in our words; one room makes rules for the kernel of them"},
	{"github.com/pires/go-proxyproto", []string{"agent/proxyheader"}, "which header is believed is decided in one place, with bounds of our own"},
	{"github.com/mholt/acmez/", []string{"certs"}, "an authority is asked in one place, where the limits are kept"},
	{"github.com/miekg/dns", []string{"certs/dns01", "internal/test/testdns"}, "DNS is spoken in one place; whoever looks up a host asks the resolver of the system"},
	{"github.com/coreos/go-oidc/", []string{"apiserver/oidc"}, "who a person is is decided in one place; behind it there are only names and roles"},
	{"golang.org/x/oauth2", []string{"apiserver/oidc"}, "tokens of the provider are spoken in one place, and leave it sealed"},
	{"github.com/chromedp", []string{"internal/test/testbrowser"}, "Chromium is driven by tests alone"},
	{"github.com/anishathalye/porcupine", []string{"e2e/robustness/model"}, "which histories are right is said in one place"},
	{"github.com/spf13/cobra", []string{"cli", "cmd"}, "flags and commands are read at the edge; rooms get a Config"},
}

// rooms says which of our rooms each room may import. A room is a folder and all below it; the longest match counts.
var rooms = map[string]struct {
	may    []string
	reason string
}{
	"gen":                {nil, "generated code stands on nothing of ours"},
	"api":                {[]string{"gen", "internal/text"}, "api is the words; whoever speaks them is above it"},
	"manifest":           {[]string{"api", "gen", "internal/text"}, "a file becomes objects without knowing where they go"},
	"store":              {[]string{"api", "gen", "internal"}, "the store keeps objects and knows nobody who uses them"},
	"plan":               {[]string{"api", "gen", "internal/text"}, "the law of git is a function of its input: whoever asks gets the same answer"},
	"apiserver":          {[]string{"api", "gen", "internal", "manifest", "plan", "store", "apiserver/rules", "apiserver/state", "apiserver/identity"}, "the door knows the store behind it, and none of those who call"},
	"apiserver/rules":    {[]string{"api", "gen", "internal/text", "plan", "apiserver/state", "apiserver/identity"}, "a rule is a function of a transaction, and knows nothing of the calls that need it"},
	"apiserver/state":    {[]string{"api", "gen", "internal", "plan", "store", "apiserver/identity"}, "all calls change objects through it, so it knows none of them"},
	"apiserver/identity": {[]string{"api", "gen", "internal", "store"}, "who somebody is does not depend on what they do"},
	"sources":            {[]string{"api", "gen", "internal", "manifest"}, loopsAreApart},
	"reconciler":         {[]string{"api", "gen", "internal", "manifest", "plan"}, loopsAreApart},
	"scheduler":          {[]string{"api", "gen", "internal"}, loopsAreApart},
	"gc":                 {[]string{"api", "gen", "internal"}, loopsAreApart},
	"certs":              {[]string{"api", "gen", "internal"}, loopsAreApart},
	"agent":              {[]string{"agent/engine", "agent/step", "api", "gen", "internal"}, loopsAreApart},
	"agent/step":         {[]string{"agent/engine", "api", "gen", "internal/scrub", "internal/text"}, "what the agent decides is a function of what it is given, and knows nothing of who carries it out"},
	"agent/engine":       {[]string{"api", "gen"}, "the interface to an engine knows neither an engine nor who calls it"},
	"agent/docker":       {[]string{"agent/engine", "api", "gen", "internal"}, "an engine does what it is told and knows nothing of who decides"},
	"cli":                {[]string{"api", "gen", "internal", "manifest"}, "caractrl is a client like any other"},
	"internal":           {[]string{"api", "gen", "internal"}, "what several rooms share stands below all of them"},
	"internal/scrub":     {nil, "what takes Secrets out of a text is pure, so that what is pure can ask it"},
	"internal/text":      {nil, "texts are cut and cleaned everywhere, so the package that does it imports nobody"},
	"fixtures":           {nil, "the fixture programs are built into images of their own"},
	// These put the rooms together or look at them from outside.
	"cmd":   {anything, ""},
	"e2e":   {anything, ""},
	"bench": {anything, ""},
	"hack":  {anything, ""},
	"docs":  {anything, ""},
}

const loopsAreApart = "the loops meet only at the API, so that each can move into a process of its own by a change of cmd alone"

var anything = []string{"*"}

// isTestSupport names what is never part of what is shipped: fakes, real servers for tests, and contract suites.
func isTestSupport(pkg string) bool {
	return strings.HasPrefix(pkg, "internal/test/") ||
		strings.HasSuffix(pkg, "/sourcetest") || strings.HasSuffix(pkg, "/storetest") || strings.HasSuffix(pkg, "/enginetest")
}

func TestImportGraph(t *testing.T) {
	g, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for _, violation := range violations(g) {
		t.Error(violation)
	}
}

// violations lists what breaks a rule, each with the rule's reason. Rules about our own rooms hold through any number
// of packages in between, since each of those is held to its own.
func violations(g graph) []string {
	var found []string
	for pkg, imports := range g {
		for _, imported := range imports {
			if why := forbiddenLibrary(pkg, imported); why != "" {
				found = append(found, why)
			}
			if _, ours := g[imported]; ours {
				if why := forbiddenRoom(pkg, imported); why != "" {
					found = append(found, why)
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

func forbiddenLibrary(pkg, imported string) string {
	for _, l := range libraries {
		if !strings.HasPrefix(imported, l.prefix) || slices.ContainsFunc(l.rooms, func(room string) bool { return under(pkg, room) }) {
			continue
		}
		return fmt.Sprintf("%s imports %s, which only %s may: %s", pkg, imported, strings.Join(l.rooms, ", "), l.reason)
	}
	return ""
}

func forbiddenRoom(pkg, imported string) string {
	room := roomOf(pkg)
	rule, known := rooms[room]
	switch {
	case !known:
		return fmt.Sprintf("%s is in no room of the house: give it a line in rooms (deps_test.go) or move it", pkg)
	case slices.Equal(rule.may, anything):
		return ""
	case isTestSupport(imported):
		if isTestSupport(pkg) {
			return ""
		}
		return fmt.Sprintf("%s imports %s outside its tests: test support is never part of what is shipped", pkg, imported)
	case roomOf(imported) == room || slices.Contains(rule.may, roomOf(imported)) || slices.Contains(rule.may, top(imported)):
		return ""
	}
	return fmt.Sprintf("%s imports %s, but %s may use of ours only %v: %s", pkg, imported, room, rule.may, rule.reason)
}

// roomOf finds the room whose name is the longest prefix of the package's.
func roomOf(pkg string) string {
	for name := pkg; ; {
		if _, ok := rooms[name]; ok {
			return name
		}
		i := strings.LastIndex(name, "/")
		if i < 0 {
			return pkg
		}
		name = name[:i]
	}
}

func top(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

func under(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

// load asks the go command for the import graph of the tree. A package that does not compile yet is no reason to stop:
// building it says so better.
func load() (graph, error) {
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("go list: %w\n%s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	g := graph{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return g, nil
		} else if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		for i := range pkg.Imports {
			pkg.Imports[i] = strings.TrimPrefix(pkg.Imports[i], module)
		}
		g[strings.TrimPrefix(pkg.ImportPath, module)] = pkg.Imports
	}
}

func TestViolations(t *testing.T) {
	tests := []struct {
		name string
		give graph
		want []string // a part of each violation
	}{
		{"the straight line", graph{
			"gen/cara/v1": {"google.golang.org/grpc", "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"},
			"api":         {"gen/cara/v1"},
			"sources":     {"api", "gen/cara/v1", "manifest"}, "sources/git": {"sources", "github.com/go-git/go-git/v5"},
			"manifest": {"api", "gopkg.in/yaml.v3"},
			"store":    {"api"}, "store/pebble": {"store", "github.com/cockroachdb/pebble/v2"},
			"agent": {"agent/engine", "internal/loop", "gen/cara/v1"}, "agent/docker": {"agent/engine", "github.com/docker/docker/client"}, "agent/engine": {"api"},
			"internal/loop": {"api"}, "internal/test/testdocker": {"github.com/docker/docker/client"},
			"cmd/cara-server": {"apiserver", "scheduler", "store/pebble"}, "apiserver": {"store"}, "scheduler": {"api"},
			"e2e/demo": {"internal/test/testdocker"},
		}, nil},
		{"a loop imports a loop", graph{"scheduler": {"gc"}, "gc": nil}, []string{"scheduler imports gc, but scheduler may use"}},
		{"a loop imports the store", graph{"gc": {"store/pebble"}, "store/pebble": nil}, []string{"gc imports store/pebble"}},
		{"a loop imports the door", graph{"agent/ingress": {"apiserver"}, "apiserver": nil}, []string{"agent/ingress imports apiserver"}},
		{"by a detour", graph{"reconciler": {"internal/x"}, "internal/x": {"store"}, "store": nil}, []string{"internal/x imports store"}},
		{"the agent imports its engine", graph{"agent": {"agent/docker"}, "agent/docker": nil}, []string{"agent imports agent/docker"}},
		{"a decision imports the loop", graph{"agent/step": {"internal/loop"}, "internal/loop": nil}, []string{"agent/step imports internal/loop"}},
		{"the engine imports the agent", graph{"agent/docker": {"agent"}, "agent": nil}, []string{"agent/docker imports agent"}},
		{"go-git next door", graph{"sources/dir": {"github.com/go-git/go-git/v5/plumbing"}}, []string{"which only sources/git may"}},
		{"yaml in the cli", graph{"cli": {"gopkg.in/yaml.v3"}}, []string{"cli imports gopkg.in/yaml.v3, which only manifest may"}},
		{"a name that only begins alike", graph{"clients": {"github.com/spf13/cobra"}}, []string{"which only cli, cmd may"}},
		{"test support is shipped", graph{"agent": {"internal/test/testdocker"}, "internal/test/testdocker": nil}, []string{"never part of what is shipped"}},
		{"a room that nobody planned", graph{"util": {"api"}, "api": nil}, []string{"util is in no room"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := violations(tt.give)
			if len(got) != len(tt.want) {
				t.Fatalf("violations differ: %s", cmp.Diff(tt.want, got))
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("violation %q, want %q in it", got[i], tt.want[i])
				}
			}
		})
	}
}
