package testregistry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testserver"
)

// Registry is a running registry. The embedded server has Addr, Down, Up, Delay, Totals, Log, Reset and Close.
type Registry struct {
	*testserver.Server
	store  http.Handler // the registry itself, without faults
	folder string       // before each repository

	mu       sync.Mutex
	fault    Fault
	user     string // empty if no login is required
	password string
	tokens   int // numbers the tokens; 0 if the registry takes the login itself
	blobs    int // after which the login ends; see LoginEndsAfter
	next     func() (password string, blobs int)
}

// New runs a registry for a test on a free port of 127.0.0.1, from which an engine pulls without TLS. Its repositories are in a
// folder of its own: the engine may still have images of an earlier registry with the same port.
func New(tb testing.TB) *Registry {
	tb.Helper()
	r, err := Start(tb.Context(), "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r.folder = strings.ToLower(rand.Text()) + "/"
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// Start is New for programs, and for an engine in a network namespace: listen on its Gateway.
func Start(ctx context.Context, listen string) (*Registry, error) {
	r := &Registry{store: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server, err := testserver.Start(ctx, testserver.Config{Handler: http.HandlerFunc(r.frontDoor), Listen: listen})
	if err != nil {
		return nil, err
	}
	r.Server = server
	return r, nil
}

// Ref returns the full reference of "repository:tag" in this registry.
func (r *Registry) Ref(image string) string { return r.Addr() + "/" + r.folder + image }

// Login requires this user and password (basic authentication). An empty user requires no login.
func (r *Registry) Login(user, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.password, r.tokens, r.next = user, password, 0, nil
}

// Push stores a fixture image as "repository:tag" for a test and returns its full reference.
func (r *Registry) Push(tb testing.TB, fixture, image string) string {
	tb.Helper()
	return r.PushPadded(tb, fixture, image, 0)
}

// PushPadded is Push with an additional layer of random bytes, which an engine must pull.
func (r *Registry) PushPadded(tb testing.TB, fixture, image string, bytes int64) string {
	tb.Helper()
	ref, err := r.Put(tb.Context(), fixture, image, bytes)
	if errors.Is(err, testimage.ErrNoBusybox) {
		testneed.Missing(tb, "%v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

// Put is PushPadded for programs.
func (r *Registry) Put(ctx context.Context, fixture, image string, padding int64) (string, error) {
	found, err := testimage.Lookup(fixture)
	if err != nil {
		return "", err
	}
	built, err := found[0].Build(ctx)
	if err != nil {
		return "", err
	}
	if padding > 0 {
		if built, err = testimage.Pad(built, padding); err != nil {
			return "", err
		}
	}
	ref, err := name.ParseReference(r.Ref(image), name.Insecure)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", image, err)
	}
	if err := remote.Write(ref, built, remote.WithContext(ctx), remote.WithTransport(direct{r.store})); err != nil {
		return "", fmt.Errorf("push %s: %w", image, err)
	}
	return ref.String(), nil
}

// Remove removes the image of a tag by its digest. Pulls of the tag or the digest find nothing.
func (r *Registry) Remove(ctx context.Context, image string) error {
	tag, err := name.ParseReference(r.Ref(image), name.Insecure)
	if err != nil {
		return fmt.Errorf("remove %s: %w", image, err)
	}
	door := []remote.Option{remote.WithContext(ctx), remote.WithTransport(direct{r.store})}
	found, err := remote.Head(tag, door...)
	if err != nil {
		return fmt.Errorf("remove %s: %w", image, err)
	}
	for _, ref := range []name.Reference{tag, tag.Context().Digest(found.Digest.String())} {
		if err := remote.Delete(ref, door...); err != nil {
			return fmt.Errorf("remove %s: %w", ref, err)
		}
	}
	return nil
}

// direct calls the registry without a connection, so without faults and not counted.
type direct struct{ store http.Handler }

func (b direct) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body == nil {
		request.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	b.store.ServeHTTP(recorder, request)
	response := recorder.Result()
	response.Request = request
	return response, nil
}

// Pulls returns how often a manifest of the repository was fetched (not requested with HEAD) with success. One pull of an
// engine is one or two of these: it may first resolve the tag and then fetch the digest.
func (r *Registry) Pulls(repository string) int {
	n := 0
	for _, q := range r.Log() {
		if q.Method == http.MethodGet && q.Status == http.StatusOK && strings.HasPrefix(q.Path, "/v2/"+r.folder+repository+"/manifests/") {
			n++
		}
	}
	return n
}

// Outage stops the registry and returns a function that restarts it on the same port.
func (r *Registry) Outage(tb testing.TB) (restore func()) {
	tb.Helper()
	if err := r.Down(); err != nil {
		tb.Fatal(err)
	}
	return func() {
		tb.Helper()
		if err := r.Up(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
}

// pause waits, unless the client disconnects first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
