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

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cmd/internal/program"
)

// devFlags are the agent's flags of `cara-server dev`.
type devFlags struct {
	dockerHost    string
	ingressListen string
	networkPool   string
	format        string
	lossy         bool
	down          bool
}

func newDevCommand(f *flags) *cobra.Command {
	d := devFlags{}
	cmd := &cobra.Command{
		Use: "dev [DIR]", Short: "Run server and agent in one process, watching a directory", Args: cobra.MaximumNArgs(1),
		Long: "Run server and agent in one process, watching a directory. Each save prints a line: what runs and where, or the place\n" +
			"of the mistake. With --format Compose, each directory with a compose.yaml is a project. Containers keep running when\n" +
			"it ends; --down removes the projects of the directory. Managed volumes keep their data.",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			if !cmd.Flags().Changed("log-level") {
				f.log.Quiet() // so that the lines about projects stand out
			}
			return runDev(cmd.Context(), f, d, dir)
		},
	}
	cmd.Flags().StringVar(&d.dockerHost, "docker-host", "unix:///var/run/docker.sock", "address of the Docker engine")
	cmd.Flags().StringVar(&d.ingressListen, "ingress-listen", "127.0.0.1:8081", "address that serves HTTP by host name")
	cmd.Flags().StringVar(&d.networkPool, "network-pool", "10.213.0.0/16", "range that project networks are cut from")
	cmd.Flags().StringVar(&d.format, "format", api.FormatManifests, "what the directory holds: Manifests or Compose")
	cmd.Flags().BoolVar(&d.lossy, "lossy", false, "leave out keys of Compose files that have no equivalent, if the project can run without them")
	cmd.Flags().BoolVar(&d.down, "down", false, "remove all projects that were started for the directory, then end")
	return cmd
}

// runDev runs the server, and the agent when the server accepts joins. It returns when ctx has ended and the user has
// decided about the containers.
func runDev(ctx context.Context, f *flags, d devFlags, dir string) error {
	if d.format != api.FormatManifests && d.format != api.FormatCompose {
		return fmt.Errorf("--format is %s or %s, not %q", api.FormatManifests, api.FormatCompose, d.format)
	}
	if d.lossy && d.format != api.FormatCompose {
		return fmt.Errorf("--lossy is for --format %s", api.FormatCompose)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a directory: give the directory that holds the manifests", dir)
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
	if server.Store != "pebble" {
		return errors.New("cara-server dev keeps its state in its data directory: leave out --store")
	}
	server.AllowSourceCIDRs = append(server.AllowSourceCIDRs, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	if d.down { // another server may have the addresses, and a context must not name this one
		server.Listen, server.ContextsFile, d.ingressListen = "127.0.0.1:0", "none", ""
	}
	agent, err := d.agent(server.DataDir, server.Logger)
	if err != nil {
		return err
	}
	if err := agent.Check(ctx); err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	work, running := errgroup.WithContext(running)
	serving := make(chan string, 1)
	server.Serving = func(url string) { serving <- url }
	work.Go(func() error { return server.Run(running) })
	work.Go(func() error {
		defer stop()
		select {
		case agent.Server = <-serving:
		case <-running.Done():
			return nil
		}
		token, err := joinToken(running, server, agent.Server)
		if err != nil {
			return err
		}
		agent.JoinToken = token
		work.Go(func() error { return agent.Run(running) })
		s := &session{server: server, agent: agent, dir: dir, devFlags: d}
		return s.run(ctx, running)
	})
	return work.Wait()
}

// defaultDataDir returns a separate data directory for each watched directory, outside of it.
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
		NodeName: devNode, DataDir: filepath.Join(dataDir, "agent"),
		DockerHost: d.dockerHost, IngressListen: d.ingressListen, NetworkPool: pool, Version: version, Logger: logger,
	}, nil
}
