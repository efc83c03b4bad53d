package apiserver

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// A body counts against its caller's share from its first byte until its call has ended, over REST and gRPC.
func TestBodiesUnderWayAreCounted(t *testing.T) {
	const size = 600 << 10
	h := newHouse(t, func(c *Config) { c.MaxBodyBytes, c.MaxBodiesBytes = 1<<20, 2<<20 })
	client := func() *http.Client {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: protocols}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}()
	// hold starts an admin request whose body ends only when the returned function is called.
	hold := func(path, header string) (release func()) {
		ctx, cancel := context.WithCancel(t.Context())
		body, send := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+h.addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer admin")
		if header != "" {
			r.Header.Set("Content-Type", "application/grpc")
			r.Header.Set("Te", "trailers")
		} else {
			r.ContentLength = size
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := client.Do(r); err == nil {
				_ = resp.Body.Close()
			}
		}()
		go func() { _, _ = io.WriteString(send, header+"{") }()
		await(t, func() bool { return h.bodies.InUse("user/admin") == size })
		return func() {
			cancel()
			_ = send.Close()
			<-done
			await(t, func() bool { return h.bodies.InUse("user/admin") == 0 })
		}
	}
	frame := string(binary.BigEndian.AppendUint32([]byte{0}, size))
	large := web("large")
	large.Metadata.Annotations = map[string]string{"a": strings.Repeat("x", size)}
	for name, release := range map[string]func() func(){
		"REST": func() func() { return hold("/api/v1/projects", "") },
		"gRPC": func() func() { return hold(carav1.ProjectService_CreateProject_FullMethodName, frame) },
	} {
		t.Run(name, func(t *testing.T) {
			end := release()
			_, err := carav1.NewProjectServiceClient(h.as(t, "admin")).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: large})
			testproblem.Want(t, err, codes.ResourceExhausted, api.TitleTooMany)
			if a := h.do(t, "admin", http.MethodPost, "/api/v1/projects", `{"metadata":{"name":"`+strings.Repeat("x", size)+`"}}`); a.code != http.StatusTooManyRequests {
				t.Errorf("over REST: %d %s", a.code, a.body)
			}
			end()
			_, err = carav1.NewProjectServiceClient(h.as(t, "admin")).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: large})
			if got := api.ProblemOf(err).GetTitle(); got == api.TitleTooMany {
				t.Errorf("after the end of the first: %v", err)
			}
		})
	}
}
