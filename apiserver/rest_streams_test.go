package apiserver

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rest"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// duplexCall is a call whose body continues while the answer arrives.
type duplexCall struct {
	t    *testing.T
	body *io.PipeWriter
	resp chan *http.Response
	in   *bufio.Scanner
}

func (w *execWorld) post(ctx context.Context, t *testing.T, path string, http2 bool) *duplexCall {
	t.Helper()
	out, body := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.addr+path, out)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.file(t, identity.AdminTokenFile))
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{Protocols: protocols, DialContext: (&net.Dialer{}).DialContext}
	c := &duplexCall{t: t, body: body, resp: make(chan *http.Response, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("post: %v", err)
			}
			close(c.resp)
			return
		}
		c.resp <- resp
	}()
	t.Cleanup(func() {
		_ = body.Close()
		<-done
		transport.CloseIdleConnections()
	})
	return c
}

func (c *duplexCall) send(lines ...string) {
	c.t.Helper()
	for _, l := range lines {
		if _, err := io.WriteString(c.body, l+"\n"); err != nil {
			c.t.Fatal(err)
		}
	}
}

// answer waits for the answer to begin.
func (c *duplexCall) answer(status int, contentType string) *http.Response {
	c.t.Helper()
	resp := <-c.resp
	if resp == nil {
		c.t.Fatal("no answer")
	}
	c.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != status || resp.Header.Get("Content-Type") != contentType {
		text, _ := io.ReadAll(resp.Body)
		c.t.Fatalf("%s %s: %s", resp.Status, resp.Header.Get("Content-Type"), text)
	}
	c.in = bufio.NewScanner(resp.Body)
	return resp
}

// next reads one line of the answer.
func (c *duplexCall) next() (out struct {
	Stdout, Data []byte
	ExitCode     *int
	Connected    bool
	Closed       bool
	Error        *struct{ Detail string }
},
) {
	c.t.Helper()
	if !c.in.Scan() {
		c.t.Fatalf("the answer has ended: %v", c.in.Err())
	}
	if err := json.Unmarshal(c.in.Bytes(), &out); err != nil {
		c.t.Fatalf("%v: %s", err, c.in.Bytes())
	}
	return out
}

func TestRESTExec(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			w := newExecWorld(t)
			call := w.post(t.Context(), t, "/api/v1/projects/shop/exec", http2)
			call.send(`{"start":{"command":["cat"],"stdin":true}}`, "")
			open := w.agent.openStream()
			if open.GetExec().GetName() != "shop" || open.GetExec().GetService() != "web" {
				t.Errorf("asked for %v", open)
			}
			agent := w.agent.attach(open.GetStreamId())
			for range 3 { // each waits for the other: both directions are open
				call.send(`{"stdin":"aGVsbG8="}`)
				if m, err := agent.Recv(); err != nil || string(m.GetExec().GetStdin()) != "hello" {
					t.Fatalf("input: %v, %v", m, err)
				}
				if err := agent.Send(stdout([]byte("world"))); err != nil {
					t.Fatal(err)
				}
				if call.in == nil {
					call.answer(200, rest.ContentStream)
				}
				if got := call.next(); string(got.Stdout) != "world" {
					t.Errorf("output: %+v", got)
				}
			}
			_ = call.body.Close()
			if m, err := agent.Recv(); err != nil || !m.GetExec().GetStdinClosed() {
				t.Errorf("the end of the body: %v, %v", m, err)
			}
			if err := agent.Send(&carav1.AttachRequest{Exec: &carav1.ExecResponse{Message: &carav1.ExecResponse_ExitCode{ExitCode: 7}}}); err != nil {
				t.Fatal(err)
			}
			_ = agent.CloseSend()
			if got := call.next(); got.ExitCode == nil || *got.ExitCode != 7 {
				t.Errorf("the exit code: %+v", got)
			}
			if call.in.Scan() {
				t.Errorf("then came %s", call.in.Bytes())
			}
			eventually(t, "the audit line", func() bool {
				return strings.Contains(w.log.String(), "actor=user/admin method=Exec object=shop outcome=OK")
			})
		})
	}
}

// TestRESTExecEnds: if the caller disconnects or sends an invalid message, the agent's stream ends. If the agent
// disconnects or reports an error, the answer ends, even if the request continues.
func TestRESTExecEnds(t *testing.T) {
	w := newExecWorld(t)
	begin := func(ctx context.Context) (*duplexCall, carav1.NodeService_AttachClient) {
		t.Helper()
		call := w.post(ctx, t, "/api/v1/projects/shop/exec", false)
		call.send(`{"start":{"command":["cat"],"stdin":true}}`)
		agent := w.agent.attach(w.agent.openStream().GetStreamId()) //nolint:contextcheck // the agent is another program: its streams have a context of its own
		if err := agent.Send(stdout(nil)); err != nil {
			t.Fatal(err)
		}
		call.answer(200, rest.ContentStream)
		call.next()
		return call, agent
	}
	ctx, leave := context.WithCancel(t.Context())
	_, agent := begin(ctx)
	leave()
	if _, err := agent.Recv(); err == nil {
		t.Error("the caller left and the agent's stream goes on")
	}

	call, agent := begin(t.Context())
	call.send(`{"nonsense":1}`)
	if got := call.next(); got.Error == nil || !strings.Contains(got.Error.Detail, "nonsense") {
		t.Errorf("a line that is none: %+v", got)
	}
	if _, err := agent.Recv(); err == nil {
		t.Error("the caller was refused and the agent's stream goes on")
	}

	call, agent = begin(t.Context())
	if err := agent.Send(&carav1.AttachRequest{Error: "the engine has gone"}); err != nil {
		t.Fatal(err)
	}
	if got := call.next(); got.Error == nil || got.Error.Detail != "node n1: the engine has gone" {
		t.Errorf("what the agent says: %+v", got)
	}
	if call.in.Scan() {
		t.Errorf("then came %s", call.in.Bytes())
	}

	call, _ = begin(t.Context())
	w.stop()
	if got := call.next(); got.Error == nil {
		t.Errorf("when the server stops: %+v", got)
	}
}

func TestRESTPortForward(t *testing.T) {
	w := newExecWorld(t)
	call := w.post(t.Context(), t, "/api/v1/projects/shop/port-forward", false)
	call.send(`{"start":{"port":80}}`)
	agent := w.agent.attach(w.agent.openStream().GetStreamId())
	answer := func(m *carav1.PortForwardResponse) {
		t.Helper()
		if err := agent.Send(&carav1.AttachRequest{PortForward: m}); err != nil {
			t.Fatal(err)
		}
	}
	answer(&carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Connected{Connected: true}})
	call.answer(200, rest.ContentStream)
	if !call.next().Connected {
		t.Error("it is not connected")
	}
	call.send(`{"data":"aGVsbG8="}`, `{"closed":true}`)
	if m, err := agent.Recv(); err != nil || string(m.GetPortForward().GetData()) != "hello" {
		t.Errorf("data: %v, %v", m, err)
	}
	if m, err := agent.Recv(); err != nil || !m.GetPortForward().GetClosed() {
		t.Errorf("the end of a half: %v, %v", m, err)
	}
	answer(&carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Data{Data: []byte("world")}})
	answer(&carav1.PortForwardResponse{Message: &carav1.PortForwardResponse_Closed{Closed: true}})
	_ = agent.CloseSend()
	if got := call.next(); string(got.Data) != "world" {
		t.Errorf("data: %+v", got)
	}
	if !call.next().Closed || call.in.Scan() {
		t.Error("the end of the other half is missing")
	}
}

func TestRESTStreamsRefused(t *testing.T) {
	h := newHouse(t, nil)
	h.do(t, "admin", "POST", "/api/v1/projects", manifest("shop", "nginx:1"))
	start := `{"start":{"command":["ls"]}}`
	for name, c := range map[string]struct {
		token, method, path, body string
		code                      int
		contains                  string
	}{
		"nobody":           {"", "POST", "shop/exec", start, 401, "identity"},
		"a viewer":         {"viewer", "POST", "shop/exec", start, 403, "viewer"},
		"another's prefix": {"ci", "POST", "shop/exec", start, 403, "pr-"},
		"no node":          {"admin", "POST", "shop/exec", start, 409, "on no node"},
		"no project":       {"admin", "POST", "none/exec", start, 404, "not found"},
		"another's name":   {"admin", "POST", "shop/exec", `{"start":{"name":"blog","command":["ls"]}}`, 400, "start.name"},
		"no start":         {"admin", "POST", "shop/exec", `{"stdin":"aGVsbG8="}`, 400, "has to be `start`"},
		"nothing":          {"admin", "POST", "shop/exec", "", 400, "has to be `start`"},
		"no JSON":          {"admin", "POST", "shop/exec", "{", 400, "a line of the request"},
		"no command":       {"admin", "POST", "shop/exec", `{"start":{}}`, 400, "command"},
		"a field too many": {"admin", "POST", "shop/exec", `{"start":{"comand":["ls"]}}`, 400, `"field":"comand"`},
		"a line too long":  {"admin", "POST", "shop/exec", strings.Repeat("x", 2<<20), 400, "larger than 1 MiB"},
		"wrong method":     {"admin", "GET", "shop/exec", "", 405, "takes POST"},
		"no port":          {"admin", "POST", "shop/port-forward", `{"start":{}}`, 400, "port"},
		"forward, nobody":  {"", "POST", "shop/port-forward", `{"start":{"port":80}}`, 401, "identity"},
		"forward, a view":  {"viewer", "POST", "shop/port-forward", `{"start":{"port":80}}`, 403, "viewer"},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.do(t, c.token, c.method, "/api/v1/projects/"+c.path, c.body)
			if got.code != c.code || !strings.Contains(got.body, c.contains) || got.header.Get("Content-Type") != rest.ContentProblem {
				t.Errorf("got %d %s %s, want %d with %q", got.code, got.header.Get("Content-Type"), got.body, c.code, c.contains)
			}
		})
	}
}
