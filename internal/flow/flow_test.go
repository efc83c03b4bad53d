package flow

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	request  = *carav1.AttachRequest
	response = *carav1.AttachResponse
)

// pipe is an in-memory stream that never blocks a sender, like a server behind net/http.
type pipe[S, R Message] struct {
	out  chan<- S
	in   <-chan R
	over <-chan struct{}
}

func (p pipe[S, R]) Send(m S) error {
	select {
	case <-p.over:
		return io.EOF
	case p.out <- m:
		return nil
	}
}

func (p pipe[S, R]) Recv() (m R, err error) {
	select {
	case m := <-p.in:
		return m, nil
	default:
	}
	select {
	case m := <-p.in:
		return m, nil
	case <-p.over:
		return m, io.EOF
	}
}

func ends(window int64) (agent *End[request, response], server *End[response, request], end func()) {
	up, down, over := make(chan request, 10000), make(chan response, 10000), make(chan struct{})
	agent = New[request, response](pipe[request, response]{up, down, over}, window, func(n int64) request { return &carav1.AttachRequest{Taken: n} })
	server = New[response, request](pipe[response, request]{down, up, over}, window, func(n int64) response { return &carav1.AttachResponse{Taken: n} })
	return agent, server, func() { close(over) }
}

func line(bytes int) request {
	return &carav1.AttachRequest{Log: &carav1.LogLine{Line: string(make([]byte, bytes))}}
}

// TestWindow: a sender stops at the window and continues as the other side consumes. Nothing is lost or reordered.
func TestWindow(t *testing.T) {
	for name, size := range map[string]int{"small messages": 10, "large ones": 1 << 10, "larger than the window": 20 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const window, messages = 16 << 10, 1000
				agent, server, end := ends(window)
				go agent.Run(t.Context())
				go server.Run(t.Context())
				sent := 0
				go func() {
					for sent < messages {
						m := line(size)
						m.Log.Lost = int32(sent)
						if err := agent.Send(t.Context(), m); err != nil {
							t.Error(err)
							return
						}
						sent++
					}
				}()
				synctest.Wait()
				if one := int(weight(line(size))); sent == 0 || sent == messages || (sent-1)*one > window {
					t.Errorf("%d messages of %d bytes went into a window of %d that nobody reads", sent, one, window)
				}
				for i := range messages {
					m, err := server.Recv(t.Context())
					if err != nil || m.GetLog().GetLost() != int32(i) {
						t.Fatalf("message %d: %v, %v", i, m.GetLog().GetLost(), err)
					}
				}
				end()
				if _, err := server.Recv(t.Context()); !errors.Is(err, io.EOF) {
					t.Errorf("the end: %v", err)
				}
			})
		})
	}
}

// TestReadsOn: a side that does not consume messages still receives acknowledgements, and the end of the stream.
func TestReadsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 16 << 10
		agent, server, end := ends(window)
		go agent.Run(t.Context())
		go server.Run(t.Context())
		fill := func(send func() error) (failed <-chan error) {
			out := make(chan error, 1)
			go func() {
				for {
					if err := send(); err != nil {
						out <- err
						return
					}
				}
			}()
			synctest.Wait()
			return out
		}
		up := fill(func() error { return agent.Send(t.Context(), line(1000)) })
		down := fill(func() error {
			return server.Send(t.Context(), &carav1.AttachResponse{Exec: &carav1.ExecRequest{Message: &carav1.ExecRequest_Stdin{Stdin: make([]byte, 1000)}}})
		})
		for range 100 { // the other direction goes on while this one is full
			if _, err := agent.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		end()
		for _, failed := range []<-chan error{up, down} {
			if err := <-failed; !errors.Is(err, io.EOF) {
				t.Errorf("a sender that waits is told %v", err)
			}
		}
	})
}

func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, _, end := ends(100)
		defer end()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := agent.Recv(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Recv: %v", err)
		}
		if err := agent.Send(t.Context(), line(1000)); err != nil {
			t.Fatal(err)
		}
		if err := agent.Send(ctx, line(1000)); !errors.Is(err, context.Canceled) {
			t.Errorf("Send: %v", err)
		}
	})
}

// TestNoWindow: without a window there is no limit and no acknowledgement.
func TestNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, server, end := ends(0)
		go server.Run(t.Context())
		for range 1000 {
			if err := agent.Send(t.Context(), line(10000)); err != nil {
				t.Fatal(err)
			}
		}
		for range 1000 {
			if _, err := server.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		end()
		if m, err := agent.stream.Recv(); err == nil {
			t.Errorf("it was told %v", m)
		}
	})
}
