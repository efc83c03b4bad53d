package loop

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// fakeWatch answers each call of Watch with the next script; a script that is over breaks the stream.
type fakeWatch struct {
	mu      sync.Mutex
	scripts [][]any // *carav1.WatchResponse or error; then the stream hangs until ctx ends
	asked   []string
}

func (f *fakeWatch) Watch(ctx context.Context, req *carav1.WatchRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[carav1.WatchResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, req.ResourceVersion)
	var script []any
	if len(f.scripts) > 0 {
		script, f.scripts = f.scripts[0], f.scripts[1:]
	}
	return &fakeStream{ctx: ctx, script: script}, nil
}

type fakeStream struct {
	grpc.ClientStream
	ctx    context.Context
	script []any
}

func (s *fakeStream) Recv() (*carav1.WatchResponse, error) {
	if len(s.script) == 0 {
		<-s.ctx.Done()
		return nil, s.ctx.Err()
	}
	next := s.script[0]
	s.script = s.script[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return next.(*carav1.WatchResponse), nil
}

func project(name, rev string) *carav1.Change {
	return &carav1.Change{Object: api.Wrap(&carav1.Project{Metadata: &carav1.ObjectMeta{Name: name, ResourceVersion: rev}})}
}

func gone(name string) *carav1.Change {
	c := project(name, "0")
	c.Deleted = true
	return c
}

// part is one of several messages of a first state.
func part(changes ...*carav1.Change) *carav1.WatchResponse {
	return &carav1.WatchResponse{Changes: changes}
}

func message(rev int, synced bool, changes ...*carav1.Change) *carav1.WatchResponse {
	return &carav1.WatchResponse{ResourceVersion: strconv.Itoa(rev), Synced: synced, Changes: changes}
}

func TestMirror(t *testing.T) {
	broken := errors.New("connection reset")
	compacted := api.Errorf(codes.OutOfRange, "Gone", "revision is compacted")
	tests := map[string]struct {
		scripts [][]any
		want    []string // name@resourceVersion
		asked   []string
		told    []string // each change as the hints had it
	}{
		"the first state becomes visible whole, then changes": {
			scripts: [][]any{{part(project("b", "2")), message(5, true, project("a", "5")), message(6, false, project("c", "6"), gone("b"))}},
			want:    []string{"a@5", "c@6"}, asked: []string{""}, told: []string{"+a", "+b", "+c", "-b"},
		},
		"a broken stream goes on where it was": {
			scripts: [][]any{{message(5, true, project("a", "5")), broken}, {message(7, false, project("a", "7"))}},
			want:    []string{"a@7"}, asked: []string{"", "5"}, told: []string{"+a", "~a"},
		},
		"a first state that breaks off shows nothing": {
			scripts: [][]any{{part(project("a", "5")), broken}, {message(6, true, project("b", "6"))}},
			want:    []string{"b@6"}, asked: []string{"", ""}, told: []string{"+b"},
		},
		"too far behind lists again and tells what went meanwhile": {
			scripts: [][]any{
				{message(5, true, project("a", "4"), project("b", "5")), broken},
				{compacted},
				{message(90, true, project("b", "5"), project("c", "88"))},
			},
			want: []string{"b@5", "c@88"}, asked: []string{"", "5", ""}, told: []string{"+a", "+b", "+c", "-a"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &fakeWatch{scripts: tt.scripts}
				var told []string
				m := NewMirror(MirrorConfig{
					Client: client, Kinds: []string{api.KindProject}, Logger: slog.New(slog.DiscardHandler),
					OnChange: func(cs []Change) {
						for _, c := range cs {
							sign := "~"
							if c.Old == nil {
								sign = "+"
							} else if c.New == nil {
								sign = "-"
							}
							told = append(told, sign+api.Meta(c.Object()).Name)
						}
					},
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); _ = m.Run(ctx) }()
				if err := m.WaitSynced(ctx); err != nil {
					t.Fatal(err)
				}
				for len(client.left()) > 0 {
					synctest.Wait()
					step(ctx)
				}
				synctest.Wait()
				var have []string
				for _, p := range All[*carav1.Project](m) {
					have = append(have, p.Metadata.Name+"@"+p.Metadata.ResourceVersion)
				}
				cancel()
				<-done
				equal(t, "objects", have, tt.want)
				equal(t, "asked revisions", client.asked, tt.asked)
				equal(t, "hints", told, tt.told)
			})
		})
	}
}

func (f *fakeWatch) left() [][]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.scripts
}

func equal(t *testing.T, what string, have, want []string) {
	t.Helper()
	if len(have) != len(want) {
		t.Errorf("%s: have %v, want %v", what, have, want)
		return
	}
	for i := range want {
		if have[i] != want[i] {
			t.Errorf("%s: have %v, want %v", what, have, want)
			return
		}
	}
}

// step lets the bubble's clock pass the mirror's backoff.
func step(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
	}
}
