package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/apiserver/identity"
)

// TestRESTKnowsWhoCalls: REST accepts the same tokens and certificates as gRPC, and plaintext only on loopback.
func TestRESTKnowsWhoCalls(t *testing.T) {
	c := newCluster(t, nil)
	cfg := c.joinConfig(t, "n1")
	if _, err := join.Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	kept := struct{ Key, Certificate string }{}
	text, err := os.ReadFile(filepath.Join(cfg.DataDir, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair([]byte(kept.Certificate), []byte(kept.Key))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.id.CAPEM())
	client := func(certs ...tls.Certificate) *http.Client {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs, MinVersion: tls.VersionTLS13}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	node, nobody := client(cert), client()
	admin := c.file(t, identity.AdminTokenFile)
	tests := []struct {
		name   string
		client *http.Client
		scheme string
		token  string
		method string
		path   string
		status int
		want   string
	}{
		{"certificate", node, "https", "", "GET", "/api/v1/info", 200, `"node/n1"`},
		{"own heartbeat", node, "https", "", "POST", "/api/v1/nodes/n1/heartbeat", 204, ""},
		{"another's heartbeat", node, "https", "", "POST", "/api/v1/nodes/n2/heartbeat", 403, "n2"},
		{"token", nobody, "https", admin, "GET", "/api/v1/info", 200, `"user/admin"`},
		{"token in plaintext on the loopback", nobody, "http", admin, "GET", "/api/v1/info", 200, `"user/admin"`},
		{"nobody", nobody, "https", "", "GET", "/api/v1/info", 401, "identity"},
		{"tokens have no hashes", nobody, "https", admin, "GET", "/api/v1/tokens", 200, `"join"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), test.method, test.scheme+"://"+c.addr+test.path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if test.token != "" {
				req.Header.Set("Authorization", "Bearer "+test.token)
			}
			resp, err := test.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != test.status || !strings.Contains(string(body), test.want) || strings.Contains(string(body), "secretHash") {
				t.Errorf("%d %s (%v), want %d with %s", resp.StatusCode, body, err, test.status, test.want)
			}
		})
	}
}
