package history

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

const (
	clients  = 8
	keys     = 8
	watchers = 3
)

// TestHistory kills the real server under load, and holds what every client was told against one register a project.
func TestHistory(t *testing.T) {
	testneed.NotShort(t)
	lives, life := 4, 2*time.Second // of the server between two kills
	if os.Getenv("CARA_SOAK") != "" {
		lives, life = 40, 4*time.Second
	}
	dir := t.TempDir()
	if err := testcluster.Build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	c, err := testcluster.New(testcluster.Config{Dir: t.TempDir(), Bin: dir})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.StartServer(t.Context()))
	t.Cleanup(func() {
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	projects, err := c.Projects()
	must(err)
	w := &traffic{projects: projects, keys: keys, start: time.Now()}
	conn, err := c.Conn()
	must(err)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var calling, watching sync.WaitGroup
	for n := range clients {
		calling.Go(func() { w.run(ctx, n, rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	watchCtx, endWatches := context.WithCancel(t.Context())
	defer endWatches()
	views := make([]*follower, watchers)
	for n := range views {
		views[n] = &follower{watch: carav1.NewWatchServiceClient(conn), objects: map[string]int{}}
		watching.Go(func() { views[n].run(watchCtx) })
	}
	var gaps []time.Duration
	var kills []int64 // when the server was surely gone
	for range lives - 1 {
		<-time.After(life)
		killed := time.Now()
		must(c.Server.Kill())
		kills = append(kills, w.now())
		must(c.StartServer(t.Context()))
		must(testcluster.WaitFor(t.Context(), "a project is answered for", func(ctx context.Context) error {
			if _, err := projects.GetProject(ctx, &carav1.GetRequest{Name: "p-0"}); err != nil && !api.IsNotFound(err) {
				return err
			}
			return nil
		}))
		gaps = append(gaps, time.Since(killed))
	}
	<-time.After(life)
	stop()
	calling.Wait()

	final := map[string]int{}
	list, err := projects.ListProjects(t.Context(), &carav1.ListProjectsRequest{})
	must(err)
	for n, p := range list.GetItems() {
		final[p.GetMetadata().GetName()] = valueOf(p)
		w.ops = append(w.ops, porcupine.Operation{
			ClientId: clients + n, Input: call{kind: read, key: p.GetMetadata().GetName()}, Call: w.now(), Output: result{done, valueOf(p)}, Return: w.now() + 1,
		})
	}
	for n, view := range views {
		if err := testcluster.WaitFor(t.Context(), "a watch has what the list has", func(context.Context) error {
			return view.differs(final)
		}); err != nil {
			t.Errorf("watch %d: %v", n, err)
		}
	}
	endWatches()
	watching.Wait()
	for _, err := range w.strays {
		t.Errorf("an answer that nobody may get: %v", err)
	}
	w.close(kills)
	verdict := porcupine.CheckOperationsTimeout(model(), w.ops, time.Minute)
	if verdict != porcupine.Ok {
		t.Errorf("the history of %d operations is not linearizable: %s", len(w.ops), verdict)
	}
	if w.acked == 0 || len(gaps) == 0 {
		t.Error("nothing was tested")
	}
	slices.Sort(gaps)
	t.Logf("%d operations, %d writes acknowledged, verdict %s; %d kills, gap in service %s to %s",
		len(w.ops), w.acked, verdict, len(gaps), gaps[0].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond))
}

// follower keeps a map of the projects by a watch, which goes on where it was after each break.
type follower struct {
	watch carav1.WatchServiceClient

	mu      sync.Mutex
	at      string
	objects map[string]int
}

func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		f.mu.Lock()
		at := f.at
		if at == "" {
			clear(f.objects)
		}
		f.mu.Unlock()
		stream, err := f.watch.Watch(ctx, &carav1.WatchRequest{Kinds: []string{api.KindProject}, ResourceVersion: at})
		for err == nil {
			var msg *carav1.WatchResponse
			if msg, err = stream.Recv(); err == nil {
				f.apply(msg)
			}
		}
		if api.Code(err) == codes.OutOfRange { // list again
			f.mu.Lock()
			f.at = ""
			f.mu.Unlock()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (f *follower) apply(msg *carav1.WatchResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ch := range msg.GetChanges() {
		p := ch.GetObject().GetProject()
		if ch.GetDeleted() {
			delete(f.objects, p.GetMetadata().GetName())
		} else {
			f.objects[p.GetMetadata().GetName()] = valueOf(p)
		}
	}
	if msg.GetResourceVersion() != "" {
		f.at = msg.GetResourceVersion()
	}
}

func (f *follower) differs(final map[string]int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !maps.Equal(f.objects, final) {
		return &difference{maps.Clone(f.objects), final}
	}
	return nil
}

type difference struct{ got, want map[string]int }

func (d *difference) Error() string {
	text := "it differs:"
	for _, key := range slices.Sorted(maps.Keys(d.want)) {
		if d.got[key] != d.want[key] {
			text += " " + key
		}
	}
	return text
}
