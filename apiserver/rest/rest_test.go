package rest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caravanserai/cara/apiserver/guard"
)

func TestPanicInHandlerIsThatRequestsError(t *testing.T) {
	s := &server{Config: Config{Guard: guard.Guard{Logger: slog.New(slog.DiscardHandler)}}}
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		status int // 0: the connection breaks
	}{
		"before the answer": {func(http.ResponseWriter, *http.Request) { panic("no") }, http.StatusInternalServerError},
		"in the answer": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic("no")
		}, 0},
		"on purpose": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0},
		"none":       {func(w http.ResponseWriter, _ *http.Request) { writeText(w, "ok") }, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(s.guardHTTP(tt.handle))
			defer srv.Close()
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			resp, err := srv.Client().Get(srv.URL)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			switch {
			case tt.status == 0 && err == nil:
				t.Error("the answer looks complete")
			case tt.status != 0 && (err != nil || resp.StatusCode != tt.status):
				t.Errorf("got %v, %v; want status %d", resp, err, tt.status)
			}
		})
	}
}

func TestProvidersTellTheRealFromTheForged(t *testing.T) {
	const secret, body = "it's a secret", `{"ref":"refs/heads/main"}`
	tests := map[string]struct {
		provider string
		header   map[string]string
		want     bool
	}{
		"GitHub":                      {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=" + signed256(secret, body)}, true},
		"GitHub, another secret":      {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=" + signed256("x", body)}, false},
		"GitHub, another body":        {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=" + signed256(secret, body+" ")}, false},
		"GitHub, no signature":        {"GitHub", nil, false},
		"GitHub, SHA-1 is not enough": {"GitHub", map[string]string{"X-Hub-Signature": "sha1=" + signed256(secret, body)[:40]}, false},
		"GitHub, not hex":             {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=zz"}, false},
		"GitLab":                      {"GitLab", map[string]string{"X-Gitlab-Token": secret}, true},
		"GitLab, another token":       {"GitLab", map[string]string{"X-Gitlab-Token": secret + "x"}, false},
		"GitLab, no token":            {"GitLab", nil, false},
		"Gitea and Forgejo":           {"Gitea", map[string]string{"X-Gitea-Signature": signed256(secret, body)}, true},
		"Bitbucket":                   {"Bitbucket", map[string]string{"X-Hub-Signature": "sha256=" + signed256(secret, body)}, true},
		"Generic":                     {"Generic", map[string]string{"X-Signature": "sha256=" + signed256(secret, body)}, true},
		"Generic, without its prefix": {"Generic", map[string]string{"X-Signature": signed256(secret, body)}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			for k, v := range tt.header {
				h.Set(k, v)
			}
			if got := providers[tt.provider].authentic(h, []byte(body), []byte(secret)); got != tt.want {
				t.Errorf("authentic is %v, want %v", got, tt.want)
			}
		})
	}
}

func signed256(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}
