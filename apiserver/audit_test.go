package apiserver

import (
	"net/http"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// auditLines are the audit lines of a method.
func (c *cluster) auditLines(method string) (lines []string) {
	for line := range strings.Lines(c.log.String()) {
		if strings.Contains(line, "msg=audit") && strings.Contains(line, "method="+method+" ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestAuditLinesAreShort: a name of megabytes does not fill the log, and the line says where it came from.
func TestAuditLinesAreShort(t *testing.T) {
	c := newCluster(t, nil)
	_, err := carav1.NewProjectServiceClient(c.admin(t)).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: web(strings.Repeat("x", 1<<20))})
	if err == nil {
		t.Fatal("the name was accepted")
	}
	eventually(t, "the audit line", func() bool { return len(c.auditLines("CreateProject")) == 1 })
	if line := c.auditLines("CreateProject")[0]; len(line) > 1200 || !strings.Contains(line, "client=127.0.0.1:") {
		t.Errorf("%d bytes: %.300s", len(line), line)
	}
}

// TestAnonymousFailuresAreSampled: strangers cannot fill the log.
func TestAnonymousFailuresAreSampled(t *testing.T) {
	c := newCluster(t, nil)
	h := &house{Server: c.Server, addr: c.addr}
	for range 200 {
		if a := h.do(t, "", http.MethodPost, "/api/v1/projects", "{}"); a.code != http.StatusUnauthorized {
			t.Fatalf("%d %s", a.code, a.body)
		}
	}
	lines := c.auditLines("CreateProject")
	if len(lines) < anonymousBurst || len(lines) > 100 || !strings.Contains(lines[0], "client=127.0.0.1:") {
		t.Errorf("%d lines for 200 failures: %q", len(lines), lines[:min(len(lines), 2)])
	}
}

// TestAJoinIsAudited: the line says which node joined, with which token, from where.
func TestAJoinIsAudited(t *testing.T) {
	c := newCluster(t, nil)
	c.node(t, "n1")
	eventually(t, "the audit line", func() bool { return len(c.auditLines("Join")) == 1 })
	line := c.auditLines("Join")[0]
	for _, want := range []string{"actor=node/n1", "client=127.0.0.1:", "object=n1", "token="} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is missing: %s", want, line)
		}
	}
}
