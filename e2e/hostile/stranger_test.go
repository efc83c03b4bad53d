package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// maxMemory is generous: what the tests log is the figure to look at.
const maxMemory = 256 << 20

// TestHostile attacks servers, each in its own way.
func TestHostile(t *testing.T) {
	testneed.NotShort(t)
	dir := t.TempDir()
	if err := testcluster.Build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for name, attack := range map[string]func(*testing.T, *target){
		"bodies withheld over REST":     withheldREST,
		"bodies withheld over gRPC":     withheldGRPC,
		"joins withheld over gRPC":      withheldJoins,
		"large joins over gRPC":         largeJoins,
		"many small calls over HTTP2":   manyCalls,
		"wide JSON":                     wideJSON,
		"deep JSON":                     deepJSON,
		"silent connections":            silentConnections,
		"idle connections after a page": idleConnections,
		"slow webhooks":                 slowWebhooks,
		"8,400 kept connections":        keptConnections,
		"a node that floods Connect":    connectFlood,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := testcluster.New(testcluster.Config{Dir: t.TempDir(), Bin: dir})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.StartServer(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
			s := &target{c}
			before := s.usage(t)
			attack(t, s)
			s.answers(t)
			after := s.usage(t)
			t.Logf("memory before %d MiB, at most %d MiB; CPU %s", before.Resident>>20, after.Peak>>20, after.Processor-before.Processor)
			if after.Peak > maxMemory {
				t.Errorf("the server took %d MiB", after.Peak>>20)
			}
		})
	}
}

// target is the server under attack.
type target struct{ *testcluster.Cluster }

// usage is what the server's process took.
func (s *target) usage(t *testing.T) testcluster.Usage {
	t.Helper()
	u, err := testcluster.UsageOf(s.Server.Pid())
	if err != nil {
		testneed.Missing(t, "the server's usage is read from /proc: %v", err)
	}
	return u
}

// answers asks as a known caller over a new connection.
func (s *target) answers(t *testing.T) {
	t.Helper()
	conn, err := s.Conn()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	if _, err := carav1.NewInfoServiceClient(conn).GetInfo(ctx, &emptypb.Empty{}); err != nil {
		t.Errorf("a known caller is not answered: %v", err)
	}
	t.Logf("a known caller is answered after %s", time.Since(began).Round(time.Millisecond))
}

// withheld is a body of which the end never comes.
type withheld struct {
	io.Reader
	ctx context.Context
}

func (w withheld) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n == 0 && err != nil {
		<-w.ctx.Done()
		return 0, w.ctx.Err()
	}
	return n, nil
}

// flood sends requests side by side over one HTTP/2 connection, and returns how many had which answer.
// It gives up after a time.
func (s *target) flood(t *testing.T, n int, most time.Duration, request func(ctx context.Context) (*http.Request, error)) map[string]int {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	var mu sync.Mutex
	answers := map[string]int{}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			answer := "no answer"
			if r, err := request(ctx); err == nil {
				if resp, err := transport.RoundTrip(r); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					answer = resp.Status + " " + resp.Trailer.Get("Grpc-Status")
				}
			}
			mu.Lock()
			defer mu.Unlock()
			answers[answer]++
		})
	}
	wg.Wait()
	t.Logf("answers: %v", answers)
	return answers
}

const (
	bodySize = 4 << 20
	patience = 30 * time.Second // with a flood of requests that the server answers
)

func withheldREST(t *testing.T, s *target) {
	s.flood(t, 150, patience, func(ctx context.Context) (*http.Request, error) {
		body := withheld{bytes.NewReader(make([]byte, bodySize-1)), ctx}
		return http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/api/v1/projects", body)
	})
}

// grpcCall is a call with a message of which the last byte never comes.
func (s *target) grpcCall(ctx context.Context, method string, size int) (*http.Request, error) {
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(size)), make([]byte, size-1)...)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+method, withheld{bytes.NewReader(frame), ctx})
	if err == nil {
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
	}
	return r, err
}

func withheldGRPC(t *testing.T, s *target) {
	s.flood(t, 150, patience, func(ctx context.Context) (*http.Request, error) {
		return s.grpcCall(ctx, carav1.ProjectService_CreateProject_FullMethodName, bodySize-100)
	})
}

func withheldJoins(t *testing.T, s *target) {
	s.flood(t, 150, 10*time.Second, func(ctx context.Context) (*http.Request, error) { // they wait longer than that
		return s.grpcCall(ctx, carav1.NodeService_Join_FullMethodName, 30<<10)
	})
}

// largeJoins sends join requests of 4 MiB. The server must reject them unread: a join request is small.
func largeJoins(t *testing.T, s *target) {
	s.flood(t, 120, patience, func(ctx context.Context) (*http.Request, error) {
		return s.grpcCall(ctx, carav1.NodeService_Join_FullMethodName, bodySize-100)
	})
}

func manyCalls(t *testing.T, s *target) {
	before := s.usage(t)
	const calls = 2500
	s.flood(t, calls, patience, func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/api/v1/projects", nil)
	})
	t.Logf("CPU of the server for each call: %s", (s.usage(t).Processor-before.Processor)/calls)
}

// posts sends a body many times over HTTP/1, and logs the server's CPU for each.
func (s *target) posts(t *testing.T, body []byte) {
	t.Helper()
	const n = 100
	before := s.usage(t)
	var unauthorized atomic.Int32
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range n {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/api/v1/projects", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			continue // the server closed the connection while the body was being sent
		}
		if resp.StatusCode == http.StatusUnauthorized {
			unauthorized.Add(1)
		}
		_ = resp.Body.Close()
	}
	t.Logf("%d bytes: CPU of the server until a 401: %s; %d of %d clients read it", len(body), (s.usage(t).Processor-before.Processor)/n, unauthorized.Load(), n)
	if unauthorized.Load() == 0 {
		t.Error("no client read a 401")
	}
}

func wideJSON(t *testing.T, s *target) {
	body := bytes.NewBufferString(`{"metadata":{"name":"x","labels":{"a":""`)
	for i := range 250_000 {
		fmt.Fprintf(body, `,"%d":""`, i)
	}
	body.WriteString(`}}}`)
	s.posts(t, body.Bytes())
}

func deepJSON(t *testing.T, s *target) {
	s.posts(t, bytes.Repeat([]byte(`{"a":`), 500_000))
}

// connect opens connections side by side, each of which says something or nothing.
func (s *target) connect(t *testing.T, n int, say string) {
	t.Helper()
	var conns []net.Conn
	for range n {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, say); err != nil {
			continue // it was closed to make room
		}
		conns = append(conns, conn)
	}
	s.answers(t)
	t.Logf("%d connections were opened", len(conns))
}

func silentConnections(t *testing.T, s *target) { s.connect(t, 2000, "") }

func idleConnections(t *testing.T, s *target) {
	s.connect(t, 2000, "GET /healthz HTTP/1.1\r\nHost: cara\r\n\r\n")
}

// keptConnections asks once on each of many connections, and keeps all of them.
func keptConnections(t *testing.T, s *target) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 9000 {
		testneed.Missing(t, "9,000 open files (the limit is %d): ulimit -n 9000", limit.Cur)
	}
	s.connect(t, 8400, "GET /healthz HTTP/1.1\r\nHost: cara\r\n\r\n")
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(s.Server.Pid()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the server has %d files open", len(files))
	if most := 512 + 100; len(files) > most { // --max-connections-per-address, and its own
		t.Errorf("the server has %d files open, want at most %d", len(files), most)
	}
}

// connectFlood is a node that sends valid messages of the largest size as fast as the server takes them.
func connectFlood(t *testing.T, s *target) {
	token, err := os.ReadFile(filepath.Join(s.DataDir(), identity.JoinTokenFile))
	must(t, err)
	who, err := join.Join(t.Context(), join.Config{
		Server: s.URL(), Token: strings.TrimSpace(string(token)), NodeName: "flood", DataDir: t.TempDir(),
	})
	must(t, err)
	conn, err := who.Dial()
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	stream, err := carav1.NewNodeServiceClient(conn).Connect(ctx)
	must(t, err)
	info := &carav1.NodeInfo{Platform: "linux/amd64"}
	must(t, stream.Send(&carav1.ConnectRequest{InstanceId: "flood", Heartbeat: &carav1.Heartbeat{Info: info}}))
	large := &carav1.ConnectRequest{InstanceId: "flood", Heartbeat: &carav1.Heartbeat{Info: info}}
	for i := range 900 {
		large.Released = append(large.Released, &carav1.Released{Name: fmt.Sprintf("p-%d", i), Uid: strings.Repeat("u", 64)})
	}
	sent := 0
	for stream.Send(large) == nil {
		sent++
	}
	for err == nil {
		_, err = stream.Recv()
	}
	t.Logf("%d messages of %d KiB were sent in 8 s; the stream ended with: %v", sent, proto.Size(large)>>10, err)
}

func slowWebhooks(t *testing.T, s *target) {
	signature := strings.Repeat("0", 64)
	s.connect(t, 200, "POST /api/v1/sources/x/webhook HTTP/1.1\r\nHost: cara\r\nX-Hub-Signature-256: sha256="+signature+"\r\nContent-Length: 1000000\r\n\r\n{")
}
