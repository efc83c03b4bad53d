package sources

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// file builds a parsed file of documents `name=hash`, and problems that begin with `!`.
func file(path, hash string, docs ...string) Parsed {
	p := Parsed{Path: path, Hash: hash}
	for i, d := range docs {
		if why, bad := strings.CutPrefix(d, "!"); bad {
			p.Problems = append(p.Problems, &carav1.FileProblem{File: path, Line: int32(i + 1), Column: 1, Message: why})
			continue
		}
		name, h, _ := strings.Cut(d, "=")
		p.Docs = append(p.Docs, Doc{
			Project: &carav1.Project{Metadata: &carav1.ObjectMeta{Name: name, Annotations: map[string]string{"spec": h}}}, Hash: h, Line: int32(i + 1),
		})
	}
	return p
}

func read(revision string, files ...Parsed) Reading {
	return Reading{Source: "s", SourceUID: "u", Revision: revision, Files: files}
}

// cluster is the claims that a server would have.
type cluster map[string]*carav1.ClaimSpec

func (c cluster) apply(ch Change) {
	for _, u := range ch.Upserts {
		c[u.Project.Metadata.Name] = u
	}
	for _, name := range ch.Absent {
		gone := proto.CloneOf(c[name])
		gone.Present = false
		c[name] = gone
	}
}

func (c cluster) claims() []*carav1.Claim {
	var all []*carav1.Claim
	for _, name := range slices.Sorted(maps.Keys(c)) {
		all = append(all, &carav1.Claim{Metadata: &carav1.ObjectMeta{Name: "s/" + name}, Spec: c[name]})
	}
	return all
}

func (c cluster) text() []string {
	var all []string
	for _, claim := range c.claims() {
		s := claim.Spec
		line := fmt.Sprintf("%s=%s %s:%d %s@%s", s.Project.Metadata.Name, s.Hash, s.File, s.Line, s.FileHash, s.Revision)
		if !s.Present {
			line += " absent"
		}
		if s.Held != "" {
			line += " held: " + s.Held
		}
		all = append(all, line)
	}
	return all
}

func TestDelta(t *testing.T) {
	tests := map[string]struct {
		steps    []Reading
		want     []string
		upserts  int // of the last step
		absent   []string
		problems []string
		projects int
	}{
		"first": {
			steps: []Reading{read("r1", file("a", "f1", "x=1", "y=1"), file("b", "f2", "z=1"))},
			want:  []string{"x=1 a:1 f1@r1", "y=1 a:2 f1@r1", "z=1 b:1 f2@r1"}, upserts: 3, projects: 3,
		},
		"nothing changed": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2", file("a", "f1", "x=1"))},
			want:  []string{"x=1 a:1 f1@r1"}, projects: 1,
		},
		"one changed in a file of two": {
			steps: []Reading{read("r1", file("a", "f1", "x=1", "y=1")), read("r2", file("a", "f2", "x=1", "y=2"))},
			want:  []string{"x=1 a:1 f2@r1", "y=2 a:2 f2@r2"}, upserts: 2, projects: 2,
		},
		"moved to another file": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2", file("b", "f1", "x=1"))},
			want:  []string{"x=1 b:1 f1@r2"}, upserts: 1, projects: 1,
		},
		"removed": {
			steps: []Reading{read("r1", file("a", "f1", "x=1"), file("b", "f2", "y=1")), read("r2", file("b", "f2", "y=1"))},
			want:  []string{"x=1 a:1 f1@r1 absent", "y=1 b:1 f2@r1"}, absent: []string{"x"}, projects: 1,
		},
		"absent is told once": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2"), read("r3")},
			want:  []string{"x=1 a:1 f1@r1 absent"},
		},
		"back again": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2"), read("r3", file("a", "f1", "x=1"))},
			want:  []string{"x=1 a:1 f1@r3"}, upserts: 1, projects: 1,
		},
		"broken file holds its own, and only those": {
			steps: []Reading{
				read("r1", file("a", "f1", "x=1", "y=1"), file("b", "f2", "z=1")),
				read("r2", file("a", "f3", "x=2", "!bad"), file("b", "f4", "z=2"), file("c", "f5", "new=1")),
			},
			want: []string{
				"new=1 c:1 f5@r2", "x=1 a:1 f1@r1 held: its file is broken: a:2:1: bad",
				"y=1 a:2 f1@r1 held: its file is broken: a:2:1: bad", "z=2 b:1 f4@r2",
			},
			upserts: 4, problems: []string{"a:2:1: bad"}, projects: 4,
		},
		"broken file that declares what was never good": {
			steps: []Reading{read("r1", file("a", "f1", "x=1", "!bad"))}, problems: []string{"a:2:1: bad"},
		},
		"broken file and the project moved to a good one": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2", file("a", "f2", "!bad"), file("b", "f3", "x=2"))},
			want:  []string{"x=2 b:1 f3@r2"}, upserts: 1, problems: []string{"a:1:1: bad"}, projects: 1,
		},
		"moved into a broken file": {
			steps: []Reading{read("r1", file("a", "f1", "x=1"), file("b", "f2", "y=1")), read("r2", file("b", "f3", "x=1", "!bad"))},
			want: []string{
				"x=1 a:1 f1@r1 held: its file is broken: b:2:1: bad", "y=1 b:1 f2@r1 held: its file is broken: b:2:1: bad",
			},
			upserts: 2, problems: []string{"b:2:1: bad"}, projects: 2,
		},
		"mended": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2", file("a", "f2", "!bad")), read("r3", file("a", "f1", "x=1"))},
			want:  []string{"x=1 a:1 f1@r1"}, upserts: 1, projects: 1,
		},
		"held is told once": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2", file("a", "f2", "!bad")), read("r3", file("a", "f2", "!bad"), file("b", "f9"))},
			want:  []string{"x=1 a:1 f1@r1 held: its file is broken: a:1:1: bad"}, problems: []string{"a:1:1: bad"}, projects: 1,
		},
		"declared twice": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2", file("a", "f1", "x=1"), file("b", "f2", "x=2", "y=1"))},
			want:  []string{"x=1 a:1 f1@r1 held: declared twice: a:1 and b:1; keep one", "y=1 b:2 f2@r2"}, upserts: 2, projects: 2,
			problems: []string{
				`a:1:1: project "x" is declared twice, also at b:1; neither is applied: keep one`,
				`b:1:1: project "x" is declared twice, also at a:1; neither is applied: keep one`,
			},
		},
		"declared twice from the start": {
			steps: []Reading{read("r1", file("a", "f1", "x=1", "x=2"))},
			problems: []string{
				`a:1:1: project "x" is declared twice, also at a:2; neither is applied: keep one`,
				`a:2:1: project "x" is declared twice, also at a:1; neither is applied: keep one`,
			},
		},
		"declared twice while it was on its way out": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), read("r2"), read("r3", file("b", "f2", "x=1", "x=2"))},
			want:  []string{"x=1 a:1 f1@r1 held: declared twice: b:1 and b:2; keep one"}, upserts: 1, projects: 1,
			problems: []string{
				`b:1:1: project "x" is declared twice, also at b:2; neither is applied: keep one`,
				`b:2:1: project "x" is declared twice, also at b:1; neither is applied: keep one`,
			},
		},
		"an entry that cannot be read holds what was in it": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), {
				Source: "s", SourceUID: "u", Revision: "r2", Problems: []*carav1.FileProblem{{File: "a", Message: "is a symbolic link"}},
			}},
			want: []string{"x=1 a:1 f1@r1 held: its file is broken: a: is a symbolic link"}, upserts: 1, problems: []string{"a: is a symbolic link"}, projects: 1,
		},
		"source made again": {
			steps: []Reading{read("r1", file("a", "f1", "x=1")), {Source: "s", SourceUID: "u2", Revision: "r1", Files: []Parsed{file("a", "f1", "x=1")}}},
			want:  []string{"x=1 a:1 f1@r1"}, upserts: 1, projects: 1,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := cluster{}
			var last Change
			for _, r := range tt.steps {
				last = Delta(r, c.claims())
				c.apply(last)
				if again := Delta(r, c.claims()); len(again.Upserts)+len(again.Absent) > 0 {
					t.Errorf("a second pass writes: %v", again)
				}
			}
			var problems []string
			for _, p := range last.Problems {
				problems = append(problems, Place(p)+": "+p.Message)
			}
			if diff := cmp.Diff(tt.want, c.text()); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.problems, problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if len(last.Upserts) != tt.upserts || !slices.Equal(last.Absent, tt.absent) || last.Projects != tt.projects || last.Complete() != (len(tt.problems) == 0) {
				t.Errorf("%d upserts, absent %v, %d projects, complete %v", len(last.Upserts), last.Absent, last.Projects, last.Complete())
			}
		})
	}
}

// TestDeltaHistories plays random histories: readable files are claimed as they are, a project that was valid and is now
// broken is never absent, memory gives the same result as reading, and a second pass writes nothing.
func TestDeltaHistories(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 2000 {
		c, m := cluster{}, memory{}
		var head *carav1.Snapshot
		for step := range 6 {
			r := randomReading(rng, step)
			if rng.IntN(4) == 0 {
				m = recall(head, c.claims()) // a restart
			}
			known := r
			known.Files = nil
			for _, f := range r.Files {
				if p, ok := m.known(File{Path: f.Path, Hash: f.Hash}, c); ok {
					known.Files = append(known.Files, p)
					continue
				}
				known.Files = append(known.Files, f)
			}
			want, got := Delta(r, c.claims()), Delta(known, c.claims())
			if diff := cmp.Diff(summarize(want), summarize(got)); diff != "" {
				t.Fatalf("seed %d: memory differs from reading (-read +known):\n%s", seed, diff)
			}
			for _, name := range got.Absent {
				for _, f := range r.Files {
					if f.Path == c[name].File && len(f.Problems) > 0 {
						t.Fatalf("seed %d: %s is absent though its file is broken", seed, name)
					}
				}
			}
			c.apply(got)
			m = remember(known.Files)
			head = newHead(&Tree{Revision: r.Revision}, got, head)
			if again := Delta(r, c.claims()); len(again.Upserts)+len(again.Absent) > 0 {
				t.Fatalf("seed %d: a second pass writes: %v", seed, again)
			}
		}
	}
}

func randomReading(rng *rand.Rand, step int) Reading {
	r := read(fmt.Sprintf("r%d", step))
	for i := range 4 {
		if rng.IntN(4) == 0 {
			continue
		}
		var docs []string
		for range rng.IntN(3) {
			docs = append(docs, fmt.Sprintf("%c=%d", 'v'+rune(rng.IntN(5)), rng.IntN(2)))
		}
		if rng.IntN(5) == 0 {
			docs = append(docs, "!bad")
		}
		// The hash is that of the content, so equal contents have equal hashes.
		r.Files = append(r.Files, file(fmt.Sprintf("f%d.yaml", i), strings.Join(docs, ","), docs...))
	}
	return r
}

func summarize(c Change) []string {
	var all []string
	for _, u := range c.Upserts {
		all = append(all, fmt.Sprint(u.Project.Metadata.Name, u.Hash, u.File, u.Line, u.Held, u.Project.Metadata.Annotations["spec"], u.Revision))
	}
	for _, p := range c.Problems {
		all = append(all, Place(p)+p.Message)
	}
	return append(all, c.Absent...)
}
