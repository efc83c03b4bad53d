package apiserver

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// replay applies a watch to a map, and says at which revision it is.
type replay struct {
	objects map[string]*carav1.Project
	rev     string
}

func (r *replay) apply(t *testing.T, msg *carav1.WatchResponse) {
	t.Helper()
	for _, ch := range msg.GetChanges() {
		p := ch.GetObject().GetProject()
		if ch.GetDeleted() {
			delete(r.objects, p.GetMetadata().GetName())
			continue
		}
		if old := r.objects[p.GetMetadata().GetName()]; old != nil && proto.Equal(old, p) {
			t.Errorf("told twice of %s at %s", p.GetMetadata().GetName(), p.GetMetadata().GetResourceVersion())
		}
		r.objects[p.GetMetadata().GetName()] = p
	}
	if msg.GetResourceVersion() != "" {
		r.rev = msg.GetResourceVersion()
	}
}

// until reads until the watch has reached a revision.
func (r *replay) until(t *testing.T, stream carav1.WatchService_WatchClient, rev string) {
	t.Helper()
	want, _ := api.ParseRevision(rev)
	for {
		if at, ok := api.ParseRevision(r.rev); ok && r.rev != "" && at >= want {
			return
		}
		msg, err := stream.Recv()
		if err != nil {
			t.Errorf("watch: %v", err)
			return
		}
		r.apply(t, msg)
	}
}

// Watchers that begin, break off and continue at any time all end with the same state as the server, through the ring and
// the log.
func TestWatchHasNoGap(t *testing.T) {
	for name, recent := range map[string]int{"recent changes": 0, "the store's log": 8} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, func(c *Config) { c.RecentChanges = recent })
			conn := h.as(t, "admin")
			var writers, watchers sync.WaitGroup
			for w := range 4 {
				writers.Go(func() {
					projects := carav1.NewProjectServiceClient(conn)
					for i := range 60 {
						p := web("p-" + strconv.Itoa((i+w)%7))
						p.Spec.Services[0].Image = fmt.Sprintf("nginx:%d.%d", w, i)
						var err error
						if i%5 == 4 {
							_, err = projects.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: p.GetMetadata().GetName()})
						} else {
							_, err = projects.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
						}
						if err != nil && !api.IsNotFound(err) && !api.IsConflict(err) {
							t.Error(err)
						}
					}
				})
			}
			written := make(chan struct{})
			var last string
			for i := range 6 {
				watchers.Go(func() {
					r := watchInPieces(t, h, i, written)
					<-written
					stream := open(t.Context(), t, h, r.rev)
					r.until(t, stream, last)
					compare(t, h, r)
				})
			}
			watchers.Go(func() { // from the beginning, after all changes
				<-written
				r := &replay{objects: map[string]*carav1.Project{}}
				r.until(t, open(t.Context(), t, h, "0"), last)
				compare(t, h, r)
			})
			writers.Wait()
			last = api.FormatRevision(h.db.Cache.Revision())
			// one more change, so that every watcher reaches `last`
			out, err := carav1.NewProjectServiceClient(conn).PutProject(t.Context(), &carav1.PutProjectRequest{Project: web("end")})
			if err != nil {
				t.Fatal(err)
			}
			last = out.GetMetadata().GetResourceVersion()
			close(written)
			watchers.Wait()
		})
	}
}

// watchInPieces watches a few messages at a time and continues each time where it stopped.
func watchInPieces(t *testing.T, h *house, seed int, stop <-chan struct{}) *replay {
	r := &replay{objects: map[string]*carav1.Project{}}
	for {
		select {
		case <-stop:
			return r
		default:
		}
		ctx, cancel := context.WithCancel(t.Context())
		stream := open(ctx, t, h, r.rev)
		go func() { // there may be nothing more to read
			select {
			case <-stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		for range 3 + seed {
			msg, err := stream.Recv()
			if err != nil {
				break
			}
			r.apply(t, msg)
		}
		cancel()
	}
}

// open begins a watch. Where that fails it ends the goroutine, which need not be the test's own.
func open(ctx context.Context, t *testing.T, h *house, from string) carav1.WatchService_WatchClient {
	stream, err := carav1.NewWatchServiceClient(h.loop(t, "gc")).Watch(ctx, //nolint:contextcheck // the loop connects once, and calls with ctx
		&carav1.WatchRequest{Kinds: []string{api.KindProject}, ResourceVersion: from})
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	return stream
}

func compare(t *testing.T, h *house, r *replay) {
	t.Helper()
	want := map[string]string{}
	items, _ := state.Page[*carav1.Project](h.db.Cache, "", "", 0, nil)
	for _, p := range items {
		want[p.GetMetadata().GetName()] = p.GetMetadata().GetResourceVersion()
	}
	got := map[string]string{}
	for name, p := range r.objects {
		got[name] = p.GetMetadata().GetResourceVersion()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("watcher at %s differs: %s", r.rev, diff)
	}
}

// A client that has the answer to a write can read it, however many clients write concurrently.
func TestReadYourWrites(t *testing.T) {
	h := newHouse(t, nil)
	projects := carav1.NewProjectServiceClient(h.loop(t, "gc"))
	admin := carav1.NewProjectServiceClient(h.as(t, "admin"))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			name := "p-" + strconv.Itoa(w)
			for i := range 50 {
				p := web(name)
				p.Spec.Services[0].Image = "nginx:" + strconv.Itoa(i)
				put, err := admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
				if err != nil {
					t.Error(err)
					return
				}
				got, err := projects.GetProject(t.Context(), &carav1.GetRequest{Name: name})
				if err != nil || got.GetMetadata().GetResourceVersion() != put.GetMetadata().GetResourceVersion() {
					t.Errorf("wrote %s, read %s (%v)", put.GetMetadata().GetResourceVersion(), got.GetMetadata().GetResourceVersion(), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWatchTooFarBehindIsGone(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.RecentChanges = 1 })
	for i := range 5 {
		fillWith(t, h, web("p-"+strconv.Itoa(i)))
	}
	if err := h.db.Store.Compact(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	stream := open(t.Context(), t, h, "1")
	var err error
	for err == nil { // the first answer is the bookmark that opens every watch
		_, err = stream.Recv()
	}
	testproblem.Want(t, err, codes.OutOfRange, api.TitleGone)
}

func TestBookmarksAndDrain(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.BookmarkInterval = time.Millisecond })
	stream := open(t.Context(), t, h, "")
	for range 3 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	network, err := carav1.NewWatchServiceClient(h.as(t, "viewer")).Watch(t.Context(), &carav1.WatchRequest{Kinds: []string{api.KindProject}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := network.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	testproblem.Want(t, err, codes.Unavailable, "")
	for err = nil; err == nil; {
		_, err = network.Recv()
	}
	testproblem.Want(t, err, codes.Unavailable, "")
}

func fillWith(t testing.TB, h *house, p *carav1.Project) {
	t.Helper()
	err := h.db.Transact(identity.WithActor(t.Context(), identity.Actor{Name: "user/admin", Role: api.RoleAdmin}), func(t *state.Tx) error {
		_, _, err := rules.DeclareProject(t, p, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
