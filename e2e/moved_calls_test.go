package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestMovedCalls: calls and requests that come while their project moves to another node wait for the new container. None fails.
func TestMovedCalls(t *testing.T) {
	i := publicNodes(t)
	w := i.testCluster
	shop := w.name("shop")
	host := shop + ".test"
	i.certificate(shop, host)
	r := w.ctl(i.calls(shop, testimage.WebV1, "one"), "apply", "--wait", "-f", "-")
	w.says("apply --wait", r.Stdout, "https://"+host+"/\n")
	public := i.dialGRPC(host, i.https, credentials.NewTLS(&tls.Config{RootCAs: i.roots, ServerName: host}))
	inside := i.dialGRPC(host, w.ingress["n1"], insecure.NewCredentials())
	pages := i.client(false)
	page := func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/ws", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := pages.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		if resp.StatusCode >= 500 {
			err = errors.Join(err, fmt.Errorf("%s: %.200s", resp.Status, text))
		}
		return errors.Join(err, resp.Body.Close())
	}
	call := func(conn *grpc.ClientConn) func() error {
		return func() error {
			_, err := echo(t, conn)
			return err
		}
	}
	var ended atomic.Bool
	var made [3]atomic.Int64
	var all errgroup.Group
	for n, do := range []func() error{call(public), call(inside), page} {
		i.must(do())
		all.Go(func() error {
			for !ended.Load() {
				if err := do(); err != nil {
					ended.Store(true)
					return fmt.Errorf("client %d after %d requests: %w", n, made[n].Load(), err)
				}
				made[n].Add(1)
			}
			return nil
		})
	}
	for _, from := range []string{"n2", "n1", "n2"} {
		to := map[string]string{"n1": "n2", "n2": "n1"}[from]
		w.succeeds("uncordon", to)
		w.succeeds("drain", from, "--timeout", patience.String())
		w.until(shop, "runs on "+to, func(p *carav1.Project) bool { return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == to })
		var before [3]int64
		for n := range made {
			before[n] = made[n].Load()
		}
		ctx, cancel := w.patience()
		i.must(testcluster.WaitFor(ctx, "each client goes on", func(context.Context) error {
			for n := range made {
				if made[n].Load() < before[n]+3 && !ended.Load() {
					return errors.New("it has not")
				}
			}
			return nil
		}))
		cancel()
	}
	ended.Store(true)
	i.must(all.Wait())
}
