package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/cmd/internal/program"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
)

// devFlags are the agent's part of `cara-server dev`.
type devFlags struct {
	dockerHost    string
	ingressListen string
	networkPool   string
}

func newDevCommand(f *flags) *cobra.Command {
	d := devFlags{}
	cmd := &cobra.Command{
		Use: "dev [DIR]", Short: "Run server and agent in one process, watching a directory", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			return runDev(cmd.Context(), f, d, dir)
		},
	}
	cmd.Flags().StringVar(&d.dockerHost, "docker-host", "unix:///var/run/docker.sock", "Docker engine")
	cmd.Flags().StringVar(&d.ingressListen, "ingress-listen", "127.0.0.1:8081", "address that serves HTTP by host name")
	cmd.Flags().StringVar(&d.networkPool, "network-pool", "10.213.0.0/16", "range that project networks are cut from")
	return cmd
}

// runDev runs the server, then the agent once the server can be joined, until ctx ends.
func runDev(ctx context.Context, f *flags, d devFlags, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is no directory: say which directory holds the manifests", dir)
	}
	if f.DataDir == "" {
		if f.DataDir, err = defaultDataDir(dir); err != nil {
			return err
		}
	}
	server, err := f.config()
	if err != nil {
		return err
	}
	server.AllowSourceCIDRs = append(server.AllowSourceCIDRs, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	agent, err := d.agent(server.DataDir, server.Logger)
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	server.Serving = func(url string) {
		agent.Server = url
		work.Go(func() error {
			if err := watchDirectory(ctx, server, url, dir); err != nil {
				return err
			}
			greet(url, d, server.DataDir, dir)
			return agent.Run(ctx)
		})
	}
	work.Go(func() error { return server.Run(ctx) })
	return work.Wait()
}

// defaultDataDir keeps the state of each watched directory apart, outside of it.
func defaultDataDir(dir string) (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find a place for the state (or give --data-dir): %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "cara", "dev", fmt.Sprintf("%.12x", sha256.Sum256([]byte(dir)))), nil
}

func (d devFlags) agent(dataDir string, logger *slog.Logger) (*program.AgentConfig, error) {
	pool, err := netip.ParsePrefix(d.networkPool)
	if err != nil {
		return nil, fmt.Errorf("--network-pool %q: %w", d.networkPool, err)
	}
	return &program.AgentConfig{
		JoinTokenFile: filepath.Join(dataDir, identity.JoinTokenFile), NodeName: "dev", DataDir: filepath.Join(dataDir, "agent"),
		DockerHost: d.dockerHost, IngressListen: d.ingressListen, NetworkPool: pool, Version: version, Logger: logger,
	}, nil
}

// watchDirectory makes the directory a source of the cluster, as a person would.
func watchDirectory(ctx context.Context, server *program.ServerConfig, url, dir string) error {
	conn, err := access.Dial(access.Context{Server: url, TokenFile: filepath.Join(server.DataDir, identity.AdminTokenFile)})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = carav1.NewSourceServiceClient(conn).PutSource(ctx, &carav1.PutSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "dev"},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: dir}, AllowEmpty: true},
	}})
	if err != nil && (ctx.Err() == nil || status.Code(err) != codes.Canceled) {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	return errors.Join(ctx.Err())
}

func greet(url string, d devFlags, dataDir, dir string) {
	fmt.Printf(`
Cara runs. Put a project's YAML into the directory, and it runs; take it away, and it is gone.

  directory   %s
  address     %s
  ingress     http://%s (by host name)
  data        %s

What to type next, in another terminal:

  caractrl get projects -w
  caractrl describe source dev
  caractrl get events

Ctrl-C ends the server and the agent; containers keep running.

`, dir, url, d.ingressListen, dataDir)
}
