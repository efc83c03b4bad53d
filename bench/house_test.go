package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/store/pebble"
)

// house is a server on a listener of loopback, its store on a disk.
type house struct {
	server *apiserver.Server
	url    string
	token  string
	ends   []func() // in the order of what they end
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newHouse serves until close, or the end of the benchmark. change, where not nil, has the last word on the
// configuration.
func newHouse(b *testing.B, change func(*apiserver.Config)) *house {
	b.Helper()
	dir := b.TempDir()
	db, err := pebble.Open(pebble.Config{Dir: filepath.Join(dir, "store"), Logger: quiet()})
	must(b, err)
	inner, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	must(b, err)
	id, err := identity.Open(identity.Config{DataDir: dir, Listen: inner.Addr().String(), Logger: quiet()})
	must(b, err)
	cfg := apiserver.Config{Store: db, Identity: id, Logger: quiet()}
	if change != nil {
		change(&cfg)
	}
	server, err := apiserver.New(cfg)
	must(b, err)
	must(b, server.FirstStart(b.Context()))
	token, err := os.ReadFile(filepath.Join(dir, identity.AdminTokenFile))
	must(b, err)
	h := &house{server: server, url: "http://" + inner.Addr().String(), token: strings.TrimSpace(string(token))}
	b.Cleanup(h.close)
	h.closing(b, db)
	h.run(b, func(ctx context.Context) error { return server.Run(ctx, identity.NewListener(inner, id.TLSConfig())) })
	return h
}

// closing closes a connection before the server ends.
func (h *house) closing(b *testing.B, conn io.Closer) {
	h.ends = append(h.ends, func() {
		if err := conn.Close(); err != nil {
			b.Error(err)
		}
	})
}

// close ends everything, what began last first: the loops before the server, the store last.
func (h *house) close() {
	for _, end := range slices.Backward(h.ends) {
		end()
	}
	h.ends = nil
}

// run runs a room until the house closes.
func (h *house) run(b *testing.B, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	h.ends = append(h.ends, func() {
		cancel()
		if err := <-ended; err != nil && !strings.Contains(err.Error(), context.Canceled.Error()) {
			b.Error(err)
		}
	})
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// dial opens a gRPC connection over the network, as the admin.
func (h *house) dial(b *testing.B) *grpc.ClientConn {
	b.Helper()
	conn, err := access.Dial(access.Context{Server: h.url, Token: h.token})
	must(b, err)
	h.closing(b, conn)
	return conn
}

func (h *house) dials(b *testing.B, n int) []*grpc.ClientConn {
	conns := make([]*grpc.ClientConn, n)
	for i := range conns {
		conns[i] = h.dial(b)
	}
	return conns
}

// inside is a connection as one of the server's loops.
func (h *house) inside(b *testing.B, name string) grpc.ClientConnInterface {
	b.Helper()
	conn, err := h.server.Client(name)
	must(b, err)
	return conn
}

// rest makes one REST call, as the admin, and reads the answer to its end.
func (h *house) rest(ctx context.Context, client *http.Client, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, h.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return err
}

// picture follows objects of some kinds over a connection, as any client would.
type picture struct {
	*loop.Mirror
	changed chan struct{}
}

func (h *house) follow(b *testing.B, conn grpc.ClientConnInterface, kinds ...string) *picture {
	b.Helper()
	p := &picture{changed: make(chan struct{}, 1)}
	p.Mirror = loop.NewMirror(loop.MirrorConfig{
		Client: carav1.NewWatchServiceClient(conn), Kinds: kinds, Logger: quiet(),
		OnChange: func([]loop.Change) {
			select {
			case p.changed <- struct{}{}:
			default:
			}
		},
	})
	h.run(b, p.Run)
	must(b, p.WaitSynced(b.Context()))
	return p
}

// until waits for a condition that a change brings about.
func (p *picture) until(b *testing.B, cond func() bool) {
	b.Helper()
	for !cond() {
		select {
		case <-p.changed:
		case <-b.Context().Done():
			b.Fatal(b.Context().Err())
		}
	}
}

// parallel runs op b.N times from n clients at once.
func parallel(b *testing.B, n int, op func(client, i int) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	cpu := processor()
	for client := range n {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				if err := op(client, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	b.ReportMetric(float64((processor()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

// processor is how much time on a processor this process has had, server and clients together. It says what something
// costs also on a machine that has other things to do.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// project has one service of that image.
func project(name, image string) *carav1.Project {
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: image}}},
	}
}

// text is the same as a manifest, in JSON, which is YAML too.
func text(name, image string) string {
	return fmt.Sprintf(`{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":%q},`+
		`"spec":{"services":[{"name":"web","image":%q}]}}`, name, image)
}

// apply puts objects into the cluster in one transaction.
func (h *house) apply(b *testing.B, objects ...proto.Message) {
	b.Helper()
	client := carav1.NewApplyServiceClient(h.dial(b))
	for len(objects) > 0 {
		req := &carav1.ApplyRequest{}
		for _, o := range objects[:min(len(objects), 1000)] {
			req.Objects = append(req.Objects, api.Wrap(o))
		}
		objects = objects[len(req.Objects):]
		resp, err := client.Apply(b.Context(), req)
		must(b, err)
		for _, r := range resp.GetResults() {
			if r.GetProblem() != nil {
				b.Fatalf("%s %s: %v", r.GetKind(), r.GetName(), r.GetProblem())
			}
		}
	}
}

// projects puts p-0 to p-(n-1) into the cluster.
func (h *house) projects(b *testing.B, n int) {
	b.Helper()
	all := make([]proto.Message, n)
	for i := range all {
		all[i] = project(fmt.Sprintf("p-%d", i), "registry.example.com/web:1")
	}
	h.apply(b, all...)
}
