package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store/pebble"
)

// onDisk makes a benchmark's server use a real, synced disk.
func onDisk(b *testing.B) func(*Config) {
	return func(cfg *Config) {
		st, err := pebble.Open(pebble.Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { st.Close() })
		cfg.Store = st
	}
}

// parallel runs op b.N times from n concurrent clients.
func parallel(b *testing.B, n int, op func(client, i int) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	before := cpuTime()
	for client := range n {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
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
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op") // clients included
}

// cpuTime is the CPU time of this process, which hardly depends on the load of the machine.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var clientCounts = []int{1, 16}

func BenchmarkCreate(b *testing.B) {
	for _, n := range clientCounts {
		b.Run(fmt.Sprintf("grpc/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, onDisk(b))
			conns := connections(b, h, n)
			parallel(b, n, func(client, i int) error {
				_, err := carav1.NewProjectServiceClient(conns[client]).CreateProject(b.Context(),
					&carav1.CreateProjectRequest{Project: web(fmt.Sprintf("p-%d", i))})
				return err
			})
		})
		b.Run(fmt.Sprintf("rest/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, onDisk(b))
			client := httpClient(n)
			parallel(b, n, func(_, i int) error {
				return h.call(b.Context(), client, "POST", "/api/v1/projects", manifest(fmt.Sprintf("p-%d", i), "nginx:1"))
			})
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range clientCounts {
		b.Run(fmt.Sprintf("grpc/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			fill(b, h, 1000)
			conns := connections(b, h, n)
			parallel(b, n, func(client, i int) error {
				_, err := carav1.NewProjectServiceClient(conns[client]).GetProject(b.Context(), &carav1.GetRequest{Name: fmt.Sprintf("p-%d", i%1000)})
				return err
			})
		})
		b.Run(fmt.Sprintf("rest/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			fill(b, h, 1000)
			client := httpClient(n)
			parallel(b, n, func(_, i int) error {
				return h.call(b.Context(), client, "GET", fmt.Sprintf("/api/v1/projects/p-%d", i%1000), "")
			})
		})
	}
}

func BenchmarkList1000(b *testing.B) {
	for _, n := range clientCounts {
		b.Run(fmt.Sprintf("grpc/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			fill(b, h, 1000)
			conns := connections(b, h, n)
			parallel(b, n, func(client, _ int) error {
				_, err := carav1.NewProjectServiceClient(conns[client]).ListProjects(b.Context(), &carav1.ListProjectsRequest{})
				return err
			})
		})
		b.Run(fmt.Sprintf("rest/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			fill(b, h, 1000)
			client := httpClient(n)
			parallel(b, n, func(_, _ int) error { return h.call(b.Context(), client, "GET", "/api/v1/projects", "") })
		})
	}
}

// BenchmarkWatchFanOut measures the time from one write until 1,000 watchers have received it.
func BenchmarkWatchFanOut(b *testing.B) {
	const watchers = 1000
	h := newHouse(b, nil)
	conn := h.as(b, "viewer")
	ctx, cancel := context.WithCancel(b.Context())
	heard := make(chan struct{}, watchers)
	var synced, done sync.WaitGroup
	for range watchers {
		synced.Add(1)
		done.Go(func() {
			stream, err := carav1.NewProjectServiceClient(conn).WatchProjects(ctx, &carav1.WatchProjectsRequest{})
			if err != nil {
				b.Error(err)
				return
			}
			for first := true; ; first = false {
				if _, err := stream.Recv(); err != nil {
					return
				}
				if first {
					synced.Done()
					continue
				}
				heard <- struct{}{}
			}
		})
	}
	synced.Wait()
	b.ResetTimer()
	for i := range b.N {
		fillOne(b, h, i)
		for range watchers {
			<-heard
		}
	}
	b.StopTimer()
	cancel()
	done.Wait()
}

func BenchmarkApply(b *testing.B) {
	for _, changed := range []bool{true, false} {
		b.Run(fmt.Sprintf("projects=1000/changed=%v", changed), func(b *testing.B) {
			h := newHouse(b, onDisk(b))
			conn := carav1.NewApplyServiceClient(h.loop(b, "reconciler"))
			h.haveSource(b, "platform")
			for i := range b.N {
				req := &carav1.ApplyRequest{Source: "platform"}
				for j := range 1000 {
					p := web(fmt.Sprintf("p-%d", j))
					if changed {
						p.Spec.Services[0].Image = fmt.Sprintf("nginx:%d", i)
					}
					req.Objects = append(req.Objects, &carav1.Object{Value: &carav1.Object_Project{Project: p}})
				}
				if _, err := conn.Apply(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func fill(b *testing.B, h *house, n int) {
	b.Helper()
	for i := range n {
		fillOne(b, h, i)
	}
}

func fillOne(b *testing.B, h *house, i int) {
	b.Helper()
	err := h.db.Transact(identity.WithActor(b.Context(), identity.Actor{Name: "user/admin", Role: api.RoleAdmin}), func(t *state.Tx) error {
		_, _, err := rules.DeclareProject(t, web(fmt.Sprintf("p-%d", i)), nil)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func connections(b *testing.B, h *house, n int) []grpc.ClientConnInterface {
	b.Helper()
	out := make([]grpc.ClientConnInterface, n)
	for i := range out {
		out[i] = h.as(b, "admin")
	}
	return out
}

func httpClient(n int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n, MaxConnsPerHost: n}}
}

func (h *house) call(ctx context.Context, client *http.Client, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+h.addr+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer admin")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// BenchmarkVolumes is what 10,000 Volume objects take in the server's memory, from the store to the cache.
func BenchmarkVolumes(b *testing.B) {
	const volumes, atATime = 10_000, 100
	for b.Loop() {
		h := newHouse(b, onDisk(b))
		before := heap()
		for first := 0; first < volumes; first += atATime {
			err := h.db.Transact(b.Context(), func(t *state.Tx) error {
				for n := first; n < first+atATime; n++ {
					t.Put(&carav1.Volume{
						ApiVersion: api.APIVersion, Kind: api.KindVolume,
						Metadata: &carav1.ObjectMeta{Name: fmt.Sprintf("project-%d.data", n), Uid: state.NewUID(), CreationTimestamp: timestamppb.Now()},
						Spec:     &carav1.VolumeSpec{Project: fmt.Sprintf("project-%d", n), Name: "data", Reclaim: api.ReclaimRetain},
						Status: &carav1.VolumeStatus{
							State: api.VolumeInUse, Node: fmt.Sprintf("n%d", n%100), Made: true, Owner: "source/platform", ProjectUid: state.NewUID(), Since: timestamppb.Now(),
						},
					})
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/volumes, "B/volume")
	}
}

// heap is the memory of all objects that are reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the first one runs finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
