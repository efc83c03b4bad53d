package join

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/caravanserai/cara/api"
)

// TestJoinWaitsForTheServer: an agent may start first. A server that does not answer in time is like one that is not there.
func TestJoinWaitsForTheServer(t *testing.T) {
	for name, fail := range map[string]error{
		"it starts": api.Unavailable("starting"), "no answer": status.Error(codes.DeadlineExceeded, "time-out"),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, newCA(t), serverName, x509.ExtKeyUsageServerAuth)
			cfg := s.config(t)
			cfg.Logger = slog.New(slog.NewTextHandler(writerFunc(func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.fail = nil // the first warning is written: now the server is there
			}), nil))
			s.fail = fail
			if _, err := Join(t.Context(), cfg); err != nil || s.joins != 2 {
				t.Errorf("%v after %d tries", err, s.joins)
			}
		})
	}
}

// TestJoinEndsWithItsContext: the caller sees that its context has ended, before a call, in the middle of one, and between two.
func TestJoinEndsWithItsContext(t *testing.T) {
	for name, end := range map[string]func(s *fakeServer, cfg *Config, cancel context.CancelFunc){
		"before": func(_ *fakeServer, _ *Config, cancel context.CancelFunc) { cancel() },
		"in a call": func(s *fakeServer, _ *Config, cancel context.CancelFunc) {
			s.asked = func(ctx context.Context) {
				cancel()
				<-ctx.Done()
			}
		},
		"between": func(_ *fakeServer, cfg *Config, cancel context.CancelFunc) {
			cfg.Logger = slog.New(slog.NewTextHandler(writerFunc(cancel), nil)) // with the first warning
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, newCA(t), serverName, x509.ExtKeyUsageServerAuth)
			s.fail = api.Unavailable("starting")
			cfg := s.config(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end(s, &cfg, cancel)
			if _, err := Join(ctx, cfg); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want the context's end", err)
			}
		})
	}
}

// writerFunc is called with each line.
type writerFunc func()

func (w writerFunc) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}
