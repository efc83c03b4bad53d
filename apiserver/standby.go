package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/rest"
)

const standbyDrain = time.Second // calls of a standby server are short

// RunStandby serves the listener of a server that waits until it may write, until ctx ends. It answers /healthz, and every
// other call, also /readyz, with the reason why it waits. It closes the listener at the end.
func RunStandby(ctx context.Context, l net.Listener, logger *slog.Logger, why func() string) error {
	hs := httpServer(standby(why), logger)
	served := make(chan error, 1)
	guard.Guard{Logger: logger}.Go("the standby's listener", func() error { return hs.Serve(l) }, func(err error) { served <- err })
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), standbyDrain)
	defer cancel()
	err := hs.Shutdown(bounded)
	if errors.Is(err, context.DeadlineExceeded) {
		err = hs.Close()
	}
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func standby(why func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // the next connection may be passed on to an active server
		err := api.Unavailable("%s", why())
		switch {
		case r.Method == http.MethodGet && r.URL.Path == "/healthz":
			_, _ = io.WriteString(w, "ok\n") // the client may have disconnected
		case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			refuseGRPC(w, err)
		default:
			rest.WriteProblem(w, api.ProblemOf(err))
		}
	})
}
