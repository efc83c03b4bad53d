package apiserver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// TestRevisionOfAnotherServer: a call that names a revision which its server has not reached waits for it, whichever server the revision
// is from. `get servers` shows who is behind.
func TestRevisionOfAnotherServer(t *testing.T) {
	a, b, late := newLatePair(t)
	projects := func(c *cluster) carav1.ProjectServiceClient { return carav1.NewProjectServiceClient(c.admin(t)) }
	p, err := projects(a).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: web("p")})
	if err != nil {
		t.Fatal(err)
	}
	at, _ := api.ParseRevision(p.GetMetadata().GetResourceVersion())
	if err := b.db.Cache.Wait(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	release := late.hold()
	p.Spec.Services[0].Image = "another:1"
	p, err = projects(a).PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a knows that b is behind", func() bool {
		all, err := a.listServers(t)
		return err == nil && len(all) > 0 && servers{a.Server}.lag("b") != nil && *servers{a.Server}.lag("b") > 0 && *servers{a.Server}.lag("a") == 0
	})
	results := make(chan error, 2)
	p.Spec.Services[0].Image = "another:2"
	go func() {
		_, err := projects(b).PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
		results <- err
	}()
	go func() {
		stream, err := projects(b).WatchProjects(t.Context(), &carav1.WatchProjectsRequest{ResourceVersion: p.GetMetadata().GetResourceVersion()})
		if err == nil {
			_, err = stream.Recv()
		}
		results <- err
	}()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := b.catchUp(ended, identity.Actor{Role: api.RoleAdmin}, &carav1.PutProjectRequest{Project: p}); !errors.Is(err, context.Canceled) {
		t.Errorf("a call does not wait: %v", err)
	}
	if err := b.catchUp(ended, identity.Actor{Role: api.RoleNone}, &carav1.PutProjectRequest{Project: p}); err != nil {
		t.Errorf("a caller without an identity waits: %v", err)
	}
	release()
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("a call that names a revision of another server: %v", err)
		}
	}
	eventually(t, "b is not behind any more", func() bool { return *servers{a.Server}.lag("b") == 0 })
}

// listServers asks a server about all servers.
func (c *cluster) listServers(t *testing.T) ([]*carav1.Server, error) {
	l, err := carav1.NewInfoServiceClient(c.admin(t)).ListServers(t.Context(), &emptypb.Empty{})
	return l.GetItems(), err
}

// TestRevisions: all revisions that a request names count.
func TestRevisions(t *testing.T) {
	meta := func(rev string) *carav1.ObjectMeta { return &carav1.ObjectMeta{ResourceVersion: rev} }
	for name, tt := range map[string]struct {
		got, want []string
	}{
		"its own":     {revisions(&carav1.WatchRequest{ResourceVersion: "3"}), []string{"3"}},
		"an object's": {revisions(&carav1.PutProjectRequest{Project: &carav1.Project{Metadata: meta("4")}}), []string{"4"}},
		"several objects'": {revisions(&carav1.ApplyRequest{Objects: []*carav1.Object{
			api.Wrap(&carav1.Project{Metadata: meta("5")}), api.Wrap(&carav1.Node{Metadata: meta("6")}),
		}}), []string{"5", "6"}},
		"none": {revisions(&carav1.GetRequest{Name: "p"}), nil},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, tt.got, tt.want)
		}
	}
}

// taken is a store in which another server makes the first tokens between the look and the write.
type taken struct{ store.Store }

func (taken) Commit(context.Context, store.Txn) (int64, error) {
	return 0, &store.ConflictError{Key: "token/admin", Want: 0, Have: 1}
}

// TestFirstStartOfTwoServers: of two servers that start at once, one has the tokens of the cluster in its data directory. The other one
// leaves no tokens that are not valid.
func TestFirstStartOfTwoServers(t *testing.T) {
	dir := t.TempDir()
	id, err := identity.Open(identity.Config{DataDir: dir, Listen: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, nil)
	s, err := New(Config{Store: taken{h.db.Store}, Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.FirstStart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{identity.AdminTokenFile, identity.JoinTokenFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}
