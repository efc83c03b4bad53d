package e2e

import (
	"fmt"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// bad are files that no snapshot may be made of, and what is said of each.
var bad = []struct {
	name  string
	put   func(*testgit.TestRepo, *testCluster)
	words []string // of the source's condition
}{
	{"alias bomb", func(r *testgit.TestRepo, _ *testCluster) { r.Write("bad.yaml", aliasBomb()) }, []string{"bad.yaml:1:1", "unknown field"}},
	{"merge bomb", func(r *testgit.TestRepo, _ *testCluster) { r.Write("bad.yaml", mergeBomb()) }, []string{"bad.yaml:", "aliases are followed"}},
	{"200,000 keys", func(r *testgit.TestRepo, _ *testCluster) { r.Write("bad.yaml", manyKeys()) }, []string{"bad.yaml", "at most"}},
	{"depth", func(r *testgit.TestRepo, _ *testCluster) { r.Write("bad.yaml", strings.Repeat("[", 50_000)) }, []string{"bad.yaml:1:", "depth"}},
	{"depth that is well-formed", func(r *testgit.TestRepo, _ *testCluster) {
		r.Write("bad.yaml", project("x", "services: "+strings.Repeat("[", 500)+strings.Repeat("]", 500)))
	}, []string{"bad.yaml:", "64"}},
	{"2 MiB manifest", func(r *testgit.TestRepo, w *testCluster) {
		r.Write("bad.yaml", w.web(w.name("large"), testimage.WebV1)+strings.Repeat("# nothing but air\n", 2<<20/18))
	}, []string{"bad.yaml", "1 MiB"}},
	{"binary file named .yaml", func(r *testgit.TestRepo, _ *testCluster) {
		r.Write("bad.yaml", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\xff\xfe")
	}, []string{"bad.yaml:1:1", "no text"}},
	{"symlink out of the tree", func(r *testgit.TestRepo, _ *testCluster) { r.Symlink("bad.yaml", "/etc/passwd") }, []string{"bad.yaml", "link"}},
	{"service name twice", func(r *testgit.TestRepo, w *testCluster) {
		r.Write("bad.yaml", project(w.name("twice"), "services:\n- name: web\n  image: a\n- name: web\n  image: b"))
	}, []string{"bad.yaml:", "spec.services[1].name"}},
	{"project twice", func(r *testgit.TestRepo, w *testCluster) {
		r.Write("bad.yaml", w.web(w.name("good"), testimage.WebV2))
	}, []string{"bad.yaml:", "good.yaml:"}},
}

// TestOneBadFileAmongMany is named with its place and its mistake, costs the server little, harms nothing that runs, and holds
// nothing else back. That it blocks prune is a row of the law: TestLawOneBadFileAmongMany.
func TestOneBadFileAmongMany(t *testing.T) {
	w := oneNode(t)
	good := w.name("good")
	repo := w.repository("platform")
	repo.Write("good.yaml", w.web(good, testimage.WebV1))
	w.push(repo, "Start a project")
	w.running(good)
	before := w.containers(w.engines[0], good)
	for n, tt := range bad {
		w.sub(tt.name, func(w *testCluster) {
			size := w.rss()
			tt.put(repo, w)
			other := w.name(fmt.Sprint("other", n))
			repo.Write("other.yaml", w.web(other, testimage.WebV1)+"  nodeSelector: {is: nowhere}\n")
			revision := w.push(repo, "Something bad, something new")
			s := w.untilSource("platform", "says what is wrong at "+revision[:7], func(s *carav1.Source) bool {
				return s.GetStatus().GetSnapshot().GetRevision() == revision && condition(s.GetStatus().GetConditions(), "InvalidManifests").GetStatus() == "True"
			})
			w.says("InvalidManifests", condition(s.GetStatus().GetConditions(), "InvalidManifests").GetMessage(), tt.words...)
			w.says("describe", w.ctl("", "describe", "source", "platform").Stdout, append(tt.words, revision[:7])...)
			w.until(other, "is there", func(*carav1.Project) bool { return true })
			if now := w.rss(); now > size+64 {
				w.Errorf("the server had %d MiB and has %d", size, now)
			}

			repo.Remove("bad.yaml")
			w.push(repo, "Take the bad file away")
			w.untilSource("platform", "is Ready", func(s *carav1.Source) bool {
				return condition(s.GetStatus().GetConditions(), "Ready").GetStatus() == "True" &&
					condition(s.GetStatus().GetConditions(), "InvalidManifests").GetStatus() != "True"
			})
		})
	}
	w.running(good)
	if after := w.containers(w.engines[0], good); after["web"] != before["web"] {
		t.Errorf("the good project's container was %s and is %s", before["web"], after["web"])
	}
}

// TestManyBadFilesAtOnce are named one by one, with line and column, for whoever pushed them.
func TestManyBadFilesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	one := "services:\n- name: web\n  image: web:v1"
	files := map[string]struct{ spec, want string }{
		"image":   {"services:\n- name: web\n  image: \"UPPER/case:??\"", ":8:12: spec.services[0].image:"},
		"mount":   {one + "\n  volumeMounts: [{name: data, mountPath: /data}]", ":9:27: spec.services[0].volumeMounts[0].name:"},
		"ingress": {one + "\ningress:\n- {name: i, host: x.test, target: {service: app, port: 80}}", ":10:47: spec.ingress[0].target.service:"},
		"typo":    {"services:\n- name: web\n  imag: web:v1", ":8:5: spec.services[0].imag:"},
		"type":    {one + "\n  env: 7", ":9:10: spec.services[0].env:"},
	}
	repo := w.repository("platform")
	for name, file := range files {
		repo.Write("bad/"+name+".yaml", project(name, file.spec))
	}
	repo.Write("bad/"+strings.Repeat("long-", 20)+".yaml", project(strings.Repeat("a", 64), one))
	repo.Write("fine.yaml", project("fine", one))
	w.push(repo, "Six mistakes")
	s := w.untilSource("platform", "has six errors", func(s *carav1.Source) bool { return s.GetStatus().GetSnapshot().GetErrorCount() >= 6 })
	told := map[string]bool{}
	for _, e := range s.GetStatus().GetSnapshot().GetFileErrors() {
		told[fmt.Sprintf("%s:%d:%d: %s:", e.GetFile(), e.GetLine(), e.GetColumn(), e.GetPath())] = true
		if e.GetMessage() == "" {
			t.Errorf("no message: %v", e)
		}
	}
	shown := w.ctl("", "describe", "source", "platform").Stdout
	for name, file := range files {
		if want := "bad/" + name + ".yaml" + file.want; !told[want] {
			t.Errorf("no error %s in %v", want, told)
		}
		w.says("describe", shown, "bad/"+name+".yaml"+file.want)
	}
	w.says("describe", shown, "metadata.name", "63")
	w.says("the list", w.ctl("", "get", "projects").Stdout, "fine")
	w.says("the sources", w.ctl("", "get", "sources").Stdout, "platform", "False", "InvalidManifests")
}

// aliasBomb has a billion arguments.
func aliasBomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for n := 1; n < 9; n++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", n, n, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", n-1), 10), ", "))
	}
	return b.String() + project("bomb", "services:\n- name: web\n  image: web\n  command: *a8")
}

// mergeBomb doubles a map thirty times.
func mergeBomb() string {
	var b strings.Builder
	b.WriteString("m0: &m0 {a: \"1\"}\n")
	for n := 1; n < 30; n++ {
		fmt.Fprintf(&b, "m%d: &m%d {<<: [*m%d, *m%d], k%d: \"1\"}\n", n, n, n-1, n-1, n)
	}
	return b.String() + project("bomb", "services:\n- name: web\n  image: web\n  labels: *m29")
}

// manyKeys costs a YAML library that looks for duplicates pairwise most of a minute.
func manyKeys() string {
	var b strings.Builder
	b.WriteString("kind: Project\n") // a file that declares nothing of Cara's is not read as a manifest
	for n := range 200_000 {
		fmt.Fprintf(&b, "%x:\n", n)
	}
	return b.String()[:1<<20-2] + "\n"
}
