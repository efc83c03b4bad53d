package apiserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
)

func sign(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestProvidersTellTheRealFromTheForged(t *testing.T) {
	const secret, body = "it's a secret", `{"ref":"refs/heads/main"}`
	tests := map[string]struct {
		provider string
		header   map[string]string
		want     bool
	}{
		"GitHub":                      {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=" + sign(secret, body)}, true},
		"GitHub, another secret":      {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=" + sign("x", body)}, false},
		"GitHub, another body":        {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=" + sign(secret, body+" ")}, false},
		"GitHub, no signature":        {"GitHub", nil, false},
		"GitHub, SHA-1 is not enough": {"GitHub", map[string]string{"X-Hub-Signature": "sha1=" + sign(secret, body)[:40]}, false},
		"GitHub, not hex":             {"GitHub", map[string]string{"X-Hub-Signature-256": "sha256=zz"}, false},
		"GitLab":                      {"GitLab", map[string]string{"X-Gitlab-Token": secret}, true},
		"GitLab, another token":       {"GitLab", map[string]string{"X-Gitlab-Token": secret + "x"}, false},
		"GitLab, no token":            {"GitLab", nil, false},
		"Gitea and Forgejo":           {"Gitea", map[string]string{"X-Gitea-Signature": sign(secret, body)}, true},
		"Bitbucket":                   {"Bitbucket", map[string]string{"X-Hub-Signature": "sha256=" + sign(secret, body)}, true},
		"Generic":                     {"Generic", map[string]string{"X-Signature": "sha256=" + sign(secret, body)}, true},
		"Generic, without its prefix": {"Generic", map[string]string{"X-Signature": sign(secret, body)}, false},
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
