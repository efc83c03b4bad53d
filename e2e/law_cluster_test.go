package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/pebble"
)

// The tests of the law (TestLaw...) bear the names of its rows: the table in section 5 of the design. They need no
// nodes: what is decided shows in what projects are asked to be, and a project that never had a node is gone at once
// when it is deleted.

// law is a server without any agent.
func law(t *testing.T) *testCluster {
	t.Helper()
	t.Parallel()
	return newWorld(t, options{})
}

// origin is a repository of its own behind a server of its own, followed by a source of the same name.
type origin struct {
	*testgit.TestRepo
	server *testgit.HTTP
	w      *testCluster
}

// origin makes a repository that declares what files say, and a source that follows it and has applied it.
func (w *testCluster) origin(source string, files map[string]string, more ...string) *origin {
	w.Helper()
	root := w.TempDir()
	o := &origin{TestRepo: testgit.New(w.T, root, source), server: testgit.ServeHTTP(w.T, root, false), w: w}
	for path, text := range files {
		o.Write(path, text)
	}
	if len(files) > 0 {
		o.Commit("Start")
		o.Push()
	}
	w.source(source, "url: "+o.server.RepoURL(source), more...)
	if len(files) > 0 {
		o.pushed()
	}
	return o
}

// save pushes what was written, and waits until it was attempted.
func (o *origin) save(message string) (revision string) {
	o.w.Helper()
	o.Commit(message)
	o.Push()
	return o.pushed()
}

// pushed waits until the newest commit was attempted.
func (o *origin) pushed() (revision string) {
	o.w.Helper()
	revision = o.head()
	o.w.untilSource(o.Name, "has attempted "+revision[:7], func(s *carav1.Source) bool {
		return s.GetStatus().GetAttemptedRevision() == revision
	})
	return revision
}

func (o *origin) head() string {
	o.w.Helper()
	head, err := o.Head(o.w.Context())
	o.w.must(err)
	return head
}

// declared is a manifest of one project of one service.
func declared(name, image string, more ...string) string {
	return project(name, "services:\n- name: web\n  image: "+image+"\n"+strings.Join(more, "\n"))
}

// only is a repository of one file for each of these projects.
func only(image string, names ...string) map[string]string {
	files := map[string]string{}
	for _, name := range names {
		files[name+".yaml"] = declared(name, image)
	}
	return files
}

// suffers waits until a source's condition is True with this reason and message.
func (w *testCluster) suffers(source, typ, reason, message string) {
	w.Helper()
	w.untilSource(source, fmt.Sprintf("has %s %s %q", typ, reason, message), func(s *carav1.Source) bool {
		c := condition(s.GetStatus().GetConditions(), typ)
		return c.GetStatus() == api.StatusTrue && c.GetReason() == reason && c.GetMessage() == message
	})
}

// well waits until a source is Ready and a condition of it is not True.
func (w *testCluster) well(source, typ string) {
	w.Helper()
	w.untilSource(source, "is Ready without "+typ, func(s *carav1.Source) bool {
		c := s.GetStatus().GetConditions()
		return api.IsTrue(c, api.CondReady) && !api.IsTrue(c, typ)
	})
}

// claim waits until a source's word on a project has this state.
func (w *testCluster) claim(source, project, state string) *carav1.Claim {
	w.Helper()
	client, err := w.Sources()
	w.must(err)
	ctx, cancel := w.patience()
	defer cancel()
	var found *carav1.Claim
	w.must(testcluster.WaitFor(ctx, fmt.Sprintf("claim %s/%s is %s", source, project, state), func(ctx context.Context) error {
		list, err := client.ListClaims(ctx, &carav1.ListClaimsRequest{Source: source})
		if err != nil {
			return err
		}
		for _, c := range list.GetItems() {
			if c.GetSpec().GetProject().GetMetadata().GetName() == project {
				if found = c; c.GetStatus().GetState() == state {
					return nil
				}
				return fmt.Errorf("it is %s: %s", c.GetStatus().GetState(), c.GetStatus().GetMessage())
			}
		}
		return errors.New("there is none")
	}))
	return found
}

// claimSays is claim, and wants this message.
func (w *testCluster) claimSays(source, project, state, message string) {
	w.Helper()
	if got := w.claim(source, project, state).GetStatus().GetMessage(); got != message {
		w.Errorf("claim %s/%s says\n%q, want\n%q", source, project, got, message)
	}
}

// asks waits until a project asks for an image.
func (w *testCluster) asks(name, image string) *carav1.Project {
	w.Helper()
	return w.until(name, "asks for "+image, func(p *carav1.Project) bool {
		return p.GetSpec().GetServices()[0].GetImage() == image
	})
}

// owned waits until a project belongs to somebody.
func (w *testCluster) owned(name, owner string) {
	w.Helper()
	w.until(name, "belongs to "+owner, func(p *carav1.Project) bool { return p.GetMetadata().GetOwner() == owner })
}

// names are the projects there are, and the revision of the whole store.
func (w *testCluster) names() (names []string, revision string) {
	w.Helper()
	client, err := w.Projects()
	w.must(err)
	list, err := client.ListProjects(w.Context(), &carav1.ListProjectsRequest{})
	w.must(err)
	for _, p := range list.GetItems() {
		names = append(names, p.GetMetadata().GetName())
	}
	return names, list.GetMetadata().GetResourceVersion()
}

// stay wants exactly these projects.
func (w *testCluster) stay(want ...string) {
	w.Helper()
	slices.Sort(want)
	if names, _ := w.names(); !slices.Equal(names, want) {
		w.Errorf("projects %q, want %q", names, want)
	}
}

// polled waits until a source was looked at twice from now on: the second look began after now.
func (w *testCluster) polled(source string) {
	w.Helper()
	for range 2 {
		before := w.poll(source)
		w.untilSource(source, "is looked at", func(s *carav1.Source) bool {
			return s.GetStatus().GetPoll().GetLastTime().AsTime().After(before)
		})
	}
}

func (w *testCluster) poll(source string) time.Time {
	w.Helper()
	client, err := w.Sources()
	w.must(err)
	s, err := client.GetSource(w.Context(), &carav1.GetRequest{Name: source})
	w.must(err)
	return s.GetStatus().GetPoll().GetLastTime().AsTime()
}

// nothingWritten wants that not one write happens while a source is looked at twice.
func (w *testCluster) nothingWritten(source string) {
	w.Helper()
	w.quiet(source)
	_, before := w.names()
	w.polled(source)
	if _, after := w.names(); before != after {
		w.Errorf("the store was at revision %s and is at %s though nothing changed", before, after)
	}
}

// quiet waits until what was begun is written.
func (w *testCluster) quiet(source string) {
	w.Helper()
	for range 20 {
		_, before := w.names()
		w.polled(source)
		if _, after := w.names(); before == after {
			return
		}
	}
	w.Fatal("the store does not come to rest")
}

// event waits for one of this reason about an object whose message is this.
func (w *testCluster) event(kind, name, reason string, messages ...string) *carav1.Event {
	w.Helper()
	client, err := w.Events()
	w.must(err)
	ctx, cancel := w.patience()
	defer cancel()
	var found *carav1.Event
	w.must(testcluster.WaitFor(ctx, fmt.Sprintf("event %s of %s/%s: %q", reason, kind, name, messages), func(ctx context.Context) error {
		list, err := client.ListEvents(ctx, &carav1.ListEventsRequest{Kind: kind, Name: name})
		if err != nil {
			return err
		}
		var said []string
		for _, e := range list.GetItems() {
			if e.GetReason() == reason && slices.Contains(messages, e.GetMessage()) {
				found = e
				return nil
			}
			said = append(said, e.GetReason()+": "+e.GetMessage())
		}
		return fmt.Errorf("there are\n%s", strings.Join(said, "\n"))
	}))
	return found
}

// deleteSource deletes one and waits until it is gone.
func (w *testCluster) deleteSource(name string) {
	w.Helper()
	w.want(w.ctl("", "delete", "source", name), 0, "source \""+name+"\" is being deleted\n", "")
	client, err := w.Sources()
	w.must(err)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "source "+name+" is gone", func(ctx context.Context) error {
		_, err := client.GetSource(ctx, &carav1.GetRequest{Name: name})
		if api.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there (%w)", err)
	}))
}

// tamper changes a project in the store of a server that does not run, as nobody may.
func (w *testCluster) tamper(name string, change func(*carav1.Project)) {
	w.Helper()
	s, err := pebble.Open(pebble.Config{Dir: w.DataDir() + "/store"})
	w.must(err)
	key := "projects/" + name
	kv, err := s.Get(w.Context(), key)
	w.must(err)
	p := &carav1.Project{}
	w.must(proto.Unmarshal(kv.Value[1:], p)) // after the byte that names the encoding
	change(p)
	p.Metadata.Generation++
	p.Status.SpecHash = api.Hash(p.GetSpec())
	value, err := proto.MarshalOptions{}.MarshalAppend([]byte{kv.Value[0]}, p)
	w.must(err)
	_, err = s.Commit(w.Context(), store.Txn{Do: []store.Op{{Key: key, Value: value}}})
	w.must(err)
	w.must(s.Close())
}

// crash ends the server as a power cut would.
func (w *testCluster) crash() {
	w.Helper()
	w.must(w.Server.Kill())
}

func (w *testCluster) start() {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.StartServer(ctx))
}

// denied wants caractrl to fail and to say exactly this.
func (w *testCluster) denied(r testcluster.Result, message string) {
	w.Helper()
	if got := strings.TrimSpace(r.Stderr); r.Code != 1 || got != message {
		w.Errorf("exit code %d\n%s\nwant 1\n%s", r.Code, got, message)
	}
}
