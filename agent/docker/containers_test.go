package docker

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestContainerWhoseTaskWasLost: an engine that went down while it started a container refuses every later start. The
// container is taken away, so that the next look makes another.
func TestContainerWhoseTaskWasLost(t *testing.T) {
	tests := map[string]struct {
		says    string
		removed bool
	}{
		"lost":           {"task cf7d9dae21cd3c34b26a13f5ac285a7223f23d156bde2fb85ffd1a09032eff5f: already exists: unknown", true},
		"something else": {"driver failed programming external connectivity: address already in use", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var calls []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
				calls = append(calls, r.Method+" "+path)
				w.Header().Set("Api-Version", "1.41")
				switch {
				case strings.HasSuffix(r.URL.Path, "/start"):
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusInternalServerError)
					if _, err := w.Write([]byte(`{"message": "` + tt.says + `"}`)); err != nil {
						t.Error(err)
					}
				case r.Method == http.MethodDelete:
					w.WriteHeader(http.StatusNoContent)
				}
			}))
			defer server.Close()
			e, err := New(Config{Host: "tcp://" + server.Listener.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if err := e.StartContainer(t.Context(), "cf7d9dae21cd"); err == nil || !strings.Contains(err.Error(), strings.Split(tt.says, ":")[0]) {
				t.Errorf("it said %v", err)
			}
			if got := slices.Contains(calls, "DELETE containers/cf7d9dae21cd"); got != tt.removed {
				t.Errorf("calls %v, removed %v, want %v", calls, got, tt.removed)
			}
		})
	}
}
