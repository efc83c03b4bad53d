package apiserver

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// churnRequests is how many requests TestChurn makes; CARA_SOAK=1 asks for many more.
func churnRequests() int64 {
	if os.Getenv("CARA_SOAK") != "" {
		return 100_000
	}
	return 5_000
}

// TestChurn lets 16 clients create, change, apply and delete two projects concurrently: no request may get a 5xx, and the
// server must keep running.
func TestChurn(t *testing.T) {
	h := newHouse(t, nil)
	total := churnRequests()
	var made atomic.Int64
	var mu sync.Mutex
	answers := map[string]int{}
	start := time.Now()
	var clients sync.WaitGroup
	for c := range 16 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 7))
			for i := made.Add(1); i <= total && !t.Failed(); i = made.Add(1) {
				method, path, body := churn(rng, i)
				status, answer, err := h.request(t, method, path, body)
				if err != nil {
					t.Errorf("%s %s: %v", method, path, err)
					return
				}
				if status >= 500 || strings.Contains(answer, "InternalError") {
					t.Errorf("%s %s: %d %s", method, path, status, answer)
				}
				mu.Lock()
				answers[fmt.Sprintf("%s %s %d", method, strings.TrimRight(path, "ab"), status)]++
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	t.Logf("%d requests in %s: %v", total, time.Since(start).Round(time.Millisecond), answers)
	if answers["PUT /api/v1/projects/ 200"]+answers["PUT /api/v1/projects/ 201"] == 0 || answers["DELETE /api/v1/projects/ 204"] == 0 {
		t.Errorf("the clients did not meet: %v", answers)
	}
}

// churn is one random request about one of two projects.
func churn(rng *rand.Rand, i int64) (method, path, body string) {
	name := string("ab"[rng.IntN(2)])
	project := fmt.Sprintf(`{"apiVersion":"caravanserai/v1","kind":"Project","metadata":{"name":%q},"spec":{"services":[{"name":"web","image":"nginx:%d"}]}}`, name, i)
	switch rng.IntN(3) {
	case 0:
		return http.MethodPut, "/api/v1/projects/" + name, project
	case 1:
		return http.MethodPost, "/api/v1/apply", `{"objects":[{"project":` + project + `}]}`
	default:
		return http.MethodDelete, "/api/v1/projects/" + name, ""
	}
}

// request makes one request as the administrator.
func (h *house) request(t *testing.T, method, path, body string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.addr+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer admin")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}
