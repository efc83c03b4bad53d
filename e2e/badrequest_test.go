package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// usage returns what a process takes of the machine.
func (w *testCluster) usage(p *testcluster.Process) testcluster.Usage {
	w.Helper()
	u, err := testcluster.UsageOf(p.Pid())
	w.must(err)
	return u
}

// rss is the server's memory in MiB, and peak the most that it had.
func (w *testCluster) rss() int  { w.Helper(); return int(w.usage(w.Server).Resident >> 20) }
func (w *testCluster) peak() int { w.Helper(); return int(w.usage(w.Server).Peak >> 20) }

// problem is an answer of the REST API that is no success.
type problem struct {
	Title, Detail string
	Status        int
	Errors        []struct{ Field, Message string }
}

// rest calls the REST API as the admin; with a body that is text, JSON.
func (w *testCluster) rest(method, path string, body io.Reader) (*http.Response, string) {
	w.Helper()
	token, err := w.Token()
	w.must(err)
	return w.restAs(token, method, path, body)
}

func (w *testCluster) restAs(token, method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, w.URL()+path, body)
	w.must(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for n := 0; n+1 < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	w.must(err)
	return resp, string(text)
}

// refused wants a problem of this status and title, and returns it.
func (w *testCluster) refused(resp *http.Response, body string, status int, title string) problem {
	w.Helper()
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		w.Errorf("%s %s: %v: %.300s", resp.Request.Method, resp.Request.URL.Path, err, body)
	}
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != status || kind != "application/problem+json" ||
		p.Status != status || p.Title != title || p.Detail == "" {
		w.Errorf("%s %s: %d %s %s, want %d %s", resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, kind, body, status, title)
	}
	return p
}

// endless is a body of n bytes that costs no memory.
func endless(n int64) io.Reader {
	return io.LimitReader(zeros{}, n)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = ' '
	}
	return len(p), nil
}

// TestRequestBodyOf60MB is refused without being read into memory, over REST with and without a length, and over gRPC.
func TestRequestBodyOf60MB(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	const size = 60 << 20
	client, err := w.Projects()
	w.must(err)
	before := w.peak()
	for range 3 {
		resp, body := w.rest("POST", "/api/v1/projects", endless(size))
		w.refused(resp, body, http.StatusRequestEntityTooLarge, "TooLarge")
	}
	huge := &carav1.Project{Metadata: &carav1.ObjectMeta{Name: string(bytes.Repeat([]byte("x"), size))}}
	for range 3 {
		if _, err := client.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: huge}); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("gRPC: %.200v, want ResourceExhausted", err)
		}
	}
	if after := w.peak(); after > before+40 { // six bodies of 60 MB; 4 MiB of each may be read before it is refused
		t.Errorf("the server's memory went from %d to %d MiB", before, after)
	}
	w.want(w.ctl("", "get", "projects"), 0, "", "no projects found\n")
}
