package bench

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

var clients = []int{1, 16}

func BenchmarkCreate(b *testing.B) {
	for _, n := range clients {
		b.Run(fmt.Sprintf("grpc/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			conns := h.dials(b, n)
			took := &latencies{}
			parallel(b, n, took.of(func(client, i int) error {
				_, err := carav1.NewProjectServiceClient(conns[client]).CreateProject(b.Context(),
					&carav1.CreateProjectRequest{Project: project(fmt.Sprintf("p-%d", i), "registry.example.com/web:1")})
				return err
			}))
			took.report(b)
		})
		b.Run(fmt.Sprintf("rest/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			client := httpClient(b, n)
			took := &latencies{}
			parallel(b, n, took.of(func(_, i int) error {
				return h.rest(b.Context(), client, http.MethodPost, "/api/v1/projects", text(fmt.Sprintf("p-%d", i), "registry.example.com/web:1"))
			}))
			took.report(b)
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range clients {
		b.Run(fmt.Sprintf("grpc/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			h.projects(b, 1000)
			conns := h.dials(b, n)
			parallel(b, n, func(client, i int) error {
				_, err := carav1.NewProjectServiceClient(conns[client]).GetProject(b.Context(), &carav1.GetRequest{Name: fmt.Sprintf("p-%d", i%1000)})
				return err
			})
		})
		b.Run(fmt.Sprintf("rest/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			h.projects(b, 1000)
			client := httpClient(b, n)
			parallel(b, n, func(_, i int) error {
				return h.rest(b.Context(), client, http.MethodGet, fmt.Sprintf("/api/v1/projects/p-%d", i%1000), "")
			})
		})
	}
}

func BenchmarkList1000(b *testing.B) {
	for _, n := range clients {
		b.Run(fmt.Sprintf("grpc/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			h.projects(b, 1000)
			conns := h.dials(b, n)
			parallel(b, n, func(client, _ int) error {
				list, err := carav1.NewProjectServiceClient(conns[client]).ListProjects(b.Context(), &carav1.ListProjectsRequest{})
				if err == nil && len(list.GetItems()) != 1000 {
					err = fmt.Errorf("%d projects", len(list.GetItems()))
				}
				return err
			})
		})
		b.Run(fmt.Sprintf("rest/clients=%d", n), func(b *testing.B) {
			h := newHouse(b, nil)
			h.projects(b, 1000)
			client := httpClient(b, n)
			parallel(b, n, func(_, _ int) error { return h.rest(b.Context(), client, http.MethodGet, "/api/v1/projects", "") })
		})
	}
}

// BenchmarkWatchFanOut is the time from one synced write until the last of 1,000 watchers, ten on each connection, has
// heard of it.
func BenchmarkWatchFanOut(b *testing.B) {
	const connections, each, first = 100, 10, 10
	h := newHouse(b, nil)
	h.projects(b, first)
	heard := make(chan struct{}, connections*each)
	var done, synced sync.WaitGroup
	for _, conn := range h.dials(b, connections) {
		for range each {
			stream, err := carav1.NewProjectServiceClient(conn).WatchProjects(b.Context(), &carav1.WatchProjectsRequest{})
			must(b, err)
			synced.Add(1)
			done.Go(func() {
				for n := 0; ; {
					e, err := stream.Recv()
					switch {
					case err != nil:
						return // the benchmark is over
					case e.GetObject() == nil: // a bookmark
					case n < first:
						if n++; n == first {
							synced.Done()
						}
					default:
						heard <- struct{}{}
					}
				}
			})
		}
	}
	synced.Wait()
	client := carav1.NewProjectServiceClient(h.dial(b))
	b.ResetTimer()
	cpu := processor()
	for i := range b.N {
		_, err := client.PutProject(b.Context(), &carav1.PutProjectRequest{
			Project: project("p-0", fmt.Sprintf("registry.example.com/web:%d", i+2)),
		})
		must(b, err)
		for range connections * each {
			<-heard
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((processor()-cpu).Microseconds())/float64(b.N*connections*each), "cpu-µs/event")
	b.ReportMetric(float64(b.N)*connections*each/b.Elapsed().Seconds(), "events/s")
	b.Cleanup(done.Wait) // runs once the connections are closed or the benchmark's context has ended
}

func httpClient(b *testing.B, n int) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: n, MaxConnsPerHost: n}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// latencies are how long each call took.
type latencies struct {
	mu   sync.Mutex
	took []time.Duration
}

func (l *latencies) of(op func(client, i int) error) func(client, i int) error {
	return func(client, i int) error {
		start := time.Now()
		err := op(client, i)
		took := time.Since(start)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.took = append(l.took, took)
		return err
	}
}

func (l *latencies) report(b *testing.B) {
	slices.Sort(l.took)
	if n := len(l.took); n > 0 {
		b.ReportMetric(l.took[n/2].Seconds()*1000, "p50-ms")
		b.ReportMetric(l.took[n*99/100].Seconds()*1000, "p99-ms")
	}
}
